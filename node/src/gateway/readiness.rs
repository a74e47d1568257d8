//! Whether clients should come to this gateway, for `/readyz` and for the health service of gRPC.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tonic_health::{ServingStatus, server::HealthReporter};

use super::{calls::Tier, grpc::SERVICES, state::Gateway};

/// How often the health service looks.
const LOOK: Duration = Duration::from_millis(250);

/// Why clients should go elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// The process stops.
    Stopping,
    /// It does not know yet with how many others it shares the limits, and would give too much.
    NotCounted,
    /// No node of either tier can be asked.
    NoNode,
}

impl Unready {
    /// For people who look at the probe.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::NotCounted => "the gateways are not counted yet",
            Self::NoNode => "no node to forward to",
        }
    }
}

impl Gateway {
    /// A gateway with one tier is ready: without observers it still takes transactions, and calls to the missing tier
    /// are refused one by one.
    pub fn readiness(&self) -> Result<(), Unready> {
        if self.stop.is_cancelled() {
            return Err(Unready::Stopping);
        }
        if !self.limiter.counted() {
            return Err(Unready::NotCounted);
        }
        let serve = [Tier::Submit, Tier::Read].iter().any(|tier| self.backends.serve(*tier));
        if serve { Ok(()) } else { Err(Unready::NoNode) }
    }

    /// The health of each service, and under the empty name that of the gateway.
    fn health(&self) -> Vec<(&'static str, ServingStatus)> {
        let ready = self.readiness().is_ok();
        let status = |serves: bool| if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        let services = SERVICES.iter().map(|(name, tier)| (*name, status(ready && self.backends.serve(*tier))));
        std::iter::once(("", status(ready))).chain(services).collect()
    }
}

/// Keeps the health service true until the future is dropped.
pub async fn report(gateway: &Gateway, reporter: &HealthReporter) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Vec::new();
    loop {
        let stopping = gateway.stop.is_cancelled();
        let health = gateway.health();
        // Whoever watches is told of changes only.
        if health != told {
            for (service, status) in &health {
                reporter.set_service_status(service, *status).await;
            }
            told = health;
        }
        if stopping {
            return std::future::pending().await;
        }
        tokio::select! {
            _ = ticks.tick() => {}
            () = gateway.stop.cancelled() => {}
        }
    }
}
