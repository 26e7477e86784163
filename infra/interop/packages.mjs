// Finds the packages that set-up installed outside the source tree, where an import would not look for them.
import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

const dir = process.env.FANLIGHT_NODE_DIR;
if (!dir) {
  throw new Error("FANLIGHT_NODE_DIR is not set: run `cargo xtask test`");
}

export const load = createRequire(join(dir, "package.json"));
