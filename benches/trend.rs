//! Where a figure goes over a run, however long that is.

/// The straight line through all points that leaves the least squares. It takes as little memory after a day as after a
/// minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trend {
    count: f64,
    mean_x: f64,
    mean_y: f64,
    /// Sums over all points of what they are off the means.
    of_xx: f64,
    of_xy: f64,
}

impl Trend {
    /// One point more. Kept about the means, so that large figures do not drown small changes.
    pub(crate) fn add(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        let (off_x, off_y) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += off_x / self.count;
        self.mean_y += off_y / self.count;
        self.of_xx += off_x * (x - self.mean_x);
        self.of_xy += off_x * (y - self.mean_y);
    }

    /// By how much `y` grows with each `x`. Not a number where there are less than two points.
    pub(crate) fn slope(&self) -> f64 {
        self.of_xy / self.of_xx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slope(points: &[(f64, f64)]) -> f64 {
        let mut trend = Trend::default();
        points.iter().for_each(|(x, y)| trend.add(*x, *y));
        trend.slope()
    }

    #[test]
    fn a_slope_is_that_of_the_line_through_the_points() {
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(0.0, 7.0), (10.0, 7.0)]), 0.0);
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 3.0), (2.0, 0.0)]), 0.0);
        assert!(slope(&[(1.0, 1.0)]).is_nan() && slope(&[]).is_nan());
    }
}
