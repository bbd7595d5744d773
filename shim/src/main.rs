//! `lanekeeper-shim`, the service between the filter and the store.

use std::error::Error;

use clap::Parser;
use lanekeeper_shim::args::Args;
use lanekeeper_shim::listen::listen;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    listen(args.listen.clone(), args.app()?, |address| println!("listening on {address}"), shutdown).await?;
    Ok(())
}
