import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    fileParallelism: true,
    // Tests of nodes wait more than they compute: on two cores three workers take 557 s, two 652.
    maxWorkers: 3,
    // Test files of a worker share what they import: reading it anew for each took a minute of the whole.
    isolate: false,
  },
});
