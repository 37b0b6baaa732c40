//! Commands of the catalogue. One program by many names: `mdm-find` is `mdm find`, and so on; `mdcli` and the `lcg-*` keep
//! the arguments of the originals (`docs/src/commands/mdm.md`, `docs/src/commands/lcg.md`).

pub mod halves;
