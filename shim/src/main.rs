//! `lanekeeper-shim`, the service between the filter and the store.

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lanekeeper_shim::args::Args;
use lanekeeper_shim::listen::listen;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// How long a shim that takes over waits for its store: the one that it takes over from answers meanwhile.
const READY_WITHIN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanekeeper-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        // what cannot be written would be complained of to stderr, which panics where that is what cannot be written
        .log_internal_errors(false)
        .init();

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (app, manner) = (args.app()?, args.manner()?);
    if manner.takes_over
        && let Err(error) = app.until_ready(READY_WITHIN).await
    {
        warn!(%error, "taking over, and the store does not answer");
    }
    listen(args.listen.clone(), app, manner, |address| println!("listening on {address}"), shutdown)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;
    Ok(())
}
