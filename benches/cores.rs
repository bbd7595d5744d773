//! Who runs on which core, so that nobody measures the scheduler.

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Two cores of those that this process may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

impl Cores {
    pub(crate) fn find() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (Some(first), Some(second)) = (cores.next(), cores.next()) else {
            bail!("this needs two cores: one for what is measured, and one for what it asks")
        };
        Ok(Self { first, second })
    }
}

/// Does `work` on this core. The processes and threads that it starts stay there.
pub(crate) fn on_core<T>(core: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("cannot run on core {core} alone"))?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_stays_on_its_core_and_the_rest_does_not() {
        let allowed = || sched_getaffinity(None).unwrap();
        let before = allowed();
        let core = (0..CpuSet::MAX_CPU).rfind(|core| before.is_set(*core)).unwrap();
        let during = on_core(core, || Ok(std::thread::spawn(move || sched_getaffinity(None)).join()));
        let during = during.unwrap().unwrap().unwrap();
        assert_eq!((during.count(), during.is_set(core)), (1, true));
        assert_eq!(allowed(), before);
    }
}
