//! Metrics: one value per name in the process, one or more ids per name in each VM.

use std::collections::BTreeMap;

use super::call::Call;
use super::status::{Outcome, Status};

/// The kinds, as the ABI numbers them; an id carries its kind in the two lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn from_number(number: u32) -> Result<Self, Status> {
        match number {
            0 => Ok(Kind::Counter),
            1 => Ok(Kind::Gauge),
            2 => Ok(Kind::Histogram),
            _ => Err(Status::BadArgument),
        }
    }
}

/// The values of the process.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    numbers: BTreeMap<(Kind, String), u64>,
    histograms: BTreeMap<String, Vec<u64>>,
}

impl Metrics {
    pub(super) fn counter(&self, name: &str) -> Option<u64> {
        self.numbers.get(&(Kind::Counter, name.to_owned())).copied()
    }

    pub(super) fn gauge(&self, name: &str) -> Option<u64> {
        self.numbers.get(&(Kind::Gauge, name.to_owned())).copied()
    }

    pub(super) fn histogram(&self, name: &str) -> Option<Vec<u64>> {
        self.histograms.get(name).cloned()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.numbers.keys().map(|(_, name)| name).chain(self.histograms.keys()).cloned().collect()
    }
}

/// The ids of one VM. A name that is defined again gets another id, and the old one stays.
#[derive(Debug, Default)]
pub(super) struct MetricIds {
    names: BTreeMap<u32, String>,
    defined: [u32; 3],
}

impl MetricIds {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    fn define(&mut self, kind: Kind, name: &str) -> u32 {
        let [counters, gauges, histograms] = &mut self.defined;
        let count = match kind {
            Kind::Counter => counters,
            Kind::Gauge => gauges,
            Kind::Histogram => histograms,
        };
        *count += 1;
        let id = *count * 4 + kind as u32;
        self.names.insert(id, name.to_owned());
        id
    }

    fn find(&self, id: u32) -> Result<(Kind, String), Status> {
        let kind = Kind::from_number(id & 3)?;
        let name = self.names.get(&id).ok_or(Status::NotFound)?;
        Ok((kind, name.clone()))
    }
}

pub(super) fn define(call: &mut Call<'_, '_>) -> Outcome {
    let kind = Kind::from_number(call.u32())?;
    let name = String::from_utf8_lossy(&call.bytes()?).into_owned();
    let id_to = call.u32();
    let id = call.vm.metric_ids.borrow_mut().define(kind, &name);
    {
        let mut metrics = call.process.metrics.borrow_mut();
        if kind == Kind::Histogram {
            metrics.histograms.entry(name).or_default();
        } else {
            metrics.numbers.entry((kind, name)).or_default();
        }
    }
    call.put_u32(id_to, id)
}

pub(super) fn increment(call: &mut Call<'_, '_>) -> Outcome {
    let (id, delta) = (call.u32(), call.i64());
    let (kind, name) = call.vm.metric_ids.borrow().find(id)?;
    if kind == Kind::Histogram || (kind == Kind::Counter && delta <= 0) {
        return Err(Status::BadArgument);
    }
    let mut metrics = call.process.metrics.borrow_mut();
    let value = metrics.numbers.entry((kind, name)).or_default();
    *value = value.wrapping_add_signed(delta);
    Ok(())
}

pub(super) fn record(call: &mut Call<'_, '_>) -> Outcome {
    let (id, value) = (call.u32(), call.i64() as u64);
    let (kind, name) = call.vm.metric_ids.borrow().find(id)?;
    let mut metrics = call.process.metrics.borrow_mut();
    if kind == Kind::Histogram {
        metrics.histograms.entry(name).or_default().push(value);
        return Ok(());
    }
    let held = metrics.numbers.entry((kind, name)).or_default();
    *held = if kind == Kind::Counter { held.wrapping_add(value) } else { value };
    Ok(())
}

pub(super) fn get(call: &mut Call<'_, '_>) -> Outcome {
    let (id, value_to) = (call.u32(), call.u32());
    let (kind, name) = call.vm.metric_ids.borrow().find(id)?;
    if kind == Kind::Histogram {
        return Err(Status::BadArgument);
    }
    let value = call.process.metrics.borrow().numbers.get(&(kind, name)).copied().unwrap_or_default();
    call.put_u64(value_to, value)
}
