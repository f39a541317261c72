/** Of every client of the package postgres: one connection, and nothing that is asked or said unasked. */
export const clientSettings = { max: 1, fetch_types: false, onnotice: () => undefined };
