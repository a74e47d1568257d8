//! Starts the operator: flags, logs, then `run`.

use althing_operator::config::Config;
use althing_operator::run;
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let filter = EnvFilter::try_new(&config.log_level)?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run::run(config));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(outcome?)
}
