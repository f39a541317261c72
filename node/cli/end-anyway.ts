/** How long what a broken network has left open, as a socket whose peer never answers, may keep a program that is done. */
const lingerMs = 1_000;

/** Ends a program that is done although something keeps it from ending: `tell` hears what that is. Does nothing else. */
export function endAnyway(tell: (left: readonly string[]) => void): void {
  const end = (): void => {
    tell(process.getActiveResourcesInfo());
    process.exit();
  };
  setTimeout(end, lingerMs).unref();
}
