//! What a decision costs, and how exact it is.
//!
//! Two kinds of benches. Criterion's, one for each question about a function's time, run with
//! `cargo bench -p lanekeeper-benches`; they measure the engine natively, and what host calls cost comes on top in
//! a proxy. The others run with `cargo xtask bench` and leave their figures in `target/bench`.
//!
//! | module | knows |
//! | --- | --- |
//! | [`accuracy`] | how often each algorithm judges wrongly |
//! | [`store`] | how many decisions a second the shim gives, and how fast |
//! | [`envoy`] | what the filter costs in a real Envoy |
//! | [`memory`] | what a million subjects take of Redis |
//! | `work` | what a request costs in host calls and wasm instructions |
//! | `endurance` | whether millions of requests among faults leave memory as it was |
//! | [`load`] | whether the production load is carried for as long as one likes |
//! | [`limits`] | the limit that is measured, kept by each algorithm |
//! | [`sim`] | what leases cost, and whether they keep the promise |
//! | [`record`] | what a run leaves behind: figures with their machine and commit |
//! | [`tables`] | what a run says to people |
//! | [`documents`] | what the pages in docs show of the recorded runs |
//! | [`chaos`] | what users see of it when something fails |
//! | [`driver`] | a load that comes whether or not others are answered |
//! | [`ordinary`] | a policy and a request of ordinary size |

pub mod accuracy;
pub mod chaos;
mod cores;
mod cpu;
pub mod documents;
pub mod driver;
#[cfg(feature = "fake-host")]
pub mod endurance;
pub mod envoy;
mod http;
pub mod limits;
pub mod load;
pub mod memory;
pub mod ordinary;
pub mod record;
mod samples;
pub mod sim;
pub mod store;
pub mod tables;
mod trend;
mod upstream;
#[cfg(feature = "fake-host")]
pub mod work;
