//! What other limiters hold themselves to, in Lanekeeper's own terms.
//!
//! Each module re-expresses the suite of one peer; `tests/PEERS.md` says for every case of theirs where it went,
//! or why it does not apply. Where they allow for a tolerance or sleep, these do not: what a limit admits is
//! exact, and where time has to pass it is the embedded store's clock that moves. That the Redis script does the
//! same arithmetic, number for number, is shown by the differential suite.

macro_rules! on_every_server {
    ($($case:ident,)*) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::peers::house::Backend::redis()).await;
            })*
        }

        mod valkey {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(valkey) = crate::peers::house::Backend::valkey() {
                    super::$case(valkey).await;
                }
            })*
        }

        mod cluster {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::peers::house::Backend::cluster()).await;
            })*
        }
    };
}

macro_rules! on_every_backend {
    ($($case:ident,)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(crate::peers::house::Backend::embedded()).await;
            })*
        }

        on_every_server! { $($case,)* }
    };
}

mod house;

mod apisix;
mod envoy;
mod envoy_ratelimit;
mod gubernator;
mod ietf;
mod kong;
mod limitador;
