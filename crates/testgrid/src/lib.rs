//! A throw-away grid on loopback: authorities, users and proxies ([`pki`]), and key stores as processes ([`Grid`]), for
//! tests and for trying out (`docs/src/commands/testgrid.md`).
//!
//! ```no_run
//! # fn main() -> Result<(), testgrid::GridError> {
//! let mut grid = testgrid::Grid::up("/tmp/grid".as_ref(), &testgrid::GridOptions::default())?;
//! grid.kill(2)?;
//! println!("{:?}", grid.urls());
//! # Ok(())
//! # }
//! ```

mod der;
mod grid;
pub mod pki;
mod process;
mod programs;

pub use grid::{CatalogDatabase, Grid, GridError, GridOptions};
pub use programs::{ALIASES, PROGRAMS};
