//! Looks once a second at the memory there is, and has the relay take less while it is short: never on the way of a message.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::dispatch::engine::Handle;
use crate::dispatch::message::Input;
use crate::memory::{Gauge, Judge, Level, Usage};
use crate::spool::{Memory, Spool};
use crate::types::{ByteSize, Seldom};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whom it concerns.
pub(super) struct Pressure {
    pub spool: Spool,
    pub engine: Handle,
    pub clock: Clock,
}

impl Pressure {
    /// Looks until `stop`.
    pub(super) fn watch(self, tasks: &TaskTracker, stop: &CancellationToken) {
        let stop = stop.clone();
        tasks.spawn(async move {
            let (mut judge, mut level, said) = (Judge::default(), Level::Ample, Seldom::minutely());
            loop {
                let read = tokio::task::spawn_blocking(|| Gauge::new(Path::new("/")).read());
                // What cannot be read at the moment (no descriptor is free) has not changed.
                if let Ok(Some(usage)) = read.await {
                    let now = judge.judge(&usage);
                    if now != level || now == Level::Out {
                        if now != level && said.is_due(self.clock.now()) {
                            say(now, &usage);
                        }
                        level = now;
                        self.tell(level, &usage).await;
                    }
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
    }

    async fn tell(&self, level: Level, usage: &Usage) {
        self.spool.set_memory(match level {
            Level::Ample => Memory::Ample,
            Level::Short => Memory::Short,
            Level::Out => Memory::Out(shown(usage)),
        });
        // Closed: the relay stops.
        let _ = self.engine.send(Input::MemoryShort(level != Level::Ample)).await;
    }
}

fn say(level: Level, usage: &Usage) {
    let shown = shown(usage);
    match level {
        Level::Ample => tracing::info!("memory is no longer short: {shown}"),
        Level::Short => tracing::warn!("memory is short: {shown}; messages go to the disk at once"),
        Level::Out => tracing::error!("memory is short: {shown}; no mail is taken until there is more"),
    }
}

/// `230 MiB of the 256 MiB of the control group /sys/fs/cgroup are in use`
fn shown(usage: &Usage) -> String {
    let whole = |bytes: u64| ByteSize(bytes & !0xF_FFFF);
    format!("{} of the {} of {} are in use", whole(usage.used_bytes), whole(usage.limit_bytes), usage.limit)
}
