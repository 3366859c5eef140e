//! AdamW with warm-up, cosine decay, gradient clipping and a running average of the parameters; its state can be saved.
//!
//! The average is what a trained model is made of: it has most of what a longer schedule would give.
//!
//! Source: Loshchilov and Hutter, arXiv:1711.05101; averaging, Polyak and Juditsky (doi:10.1137/0330046), as an exponential one.

use candle_core::{Result, Tensor, Var, backprop::GradStore};
use std::collections::BTreeMap;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.99;
const EPS: f64 = 1e-8;
/// Share of the average that stays at each step, once it has run for a while.
const KEEP: f64 = 0.998;
/// Largest norm of all gradients together; nnU-Net's.
const CLIP: f64 = 12.0;

/// AdamW over named variables.
#[derive(Debug)]
pub struct AdamW {
    vars: BTreeMap<String, Var>,
    first: BTreeMap<String, Tensor>,
    second: BTreeMap<String, Tensor>,
    average: BTreeMap<String, Tensor>,
    weight_decay: f64,
}

impl AdamW {
    /// Starts with moments of zero.
    ///
    /// # Errors
    /// candle's.
    pub fn new(vars: BTreeMap<String, Var>, weight_decay: f64) -> Result<Self> {
        let zeros = || {
            vars.iter()
                .map(|(n, v)| Ok((n.clone(), v.zeros_like()?)))
                .collect::<Result<BTreeMap<_, _>>>()
        };
        let (first, second) = (zeros()?, zeros()?);
        let average = copies(&vars)?;
        Ok(Self {
            vars,
            first,
            second,
            average,
            weight_decay,
        })
    }

    /// One step, counted from 1, of the parameters that move.
    ///
    /// # Errors
    /// candle's.
    pub fn step(
        &mut self,
        grads: &GradStore,
        step: usize,
        learning_rate: f64,
        moves: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut square = 0.0f64;
        for (name, var) in &self.vars {
            if let Some(grad) = grads.get(var).filter(|_| moves(name)) {
                square += f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?);
            }
        }
        let factor = (CLIP / square.sqrt().max(1e-12)).min(1.0);
        let t = i32::try_from(step).unwrap_or(i32::MAX);
        let keep = KEEP.min((1.0 + step as f64) / (10.0 + step as f64));
        let (c1, c2) = (1.0 - BETA1.powi(t), 1.0 - BETA2.powi(t));
        for (name, var) in &self.vars {
            let Some(grad) = grads.get(var).filter(|_| moves(name)) else {
                continue;
            };
            let grad = (grad * factor)?;
            let first = ((&self.first[name] * BETA1)? + (&grad * (1.0 - BETA1))?)?;
            let second = ((&self.second[name] * BETA2)? + (grad.sqr()? * (1.0 - BETA2))?)?;
            let change = ((&first / c1)? / ((&second / c2)?.sqrt()? + EPS)?)?;
            // Norms and biases are not decayed.
            let decay = if var.rank() > 1 { self.weight_decay } else { 0.0 };
            let kept = (var.as_tensor() * (1.0 - learning_rate * decay))?;
            var.set(&(kept - (change * learning_rate)?)?)?;
            self.first.insert(name.clone(), first);
            self.second.insert(name.clone(), second);
            let average = ((&self.average[name] * keep)? + (var.as_tensor() * (1.0 - keep))?)?;
            self.average.insert(name.clone(), average.detach());
        }
        Ok(())
    }

    /// The running average of the parameters, by name.
    #[must_use]
    pub fn average(&self) -> &BTreeMap<String, Tensor> {
        &self.average
    }

    /// Parameters, moments and average, by name: what a checkpoint holds.
    ///
    /// # Errors
    /// candle's.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut all = BTreeMap::new();
        for (name, var) in &self.vars {
            all.insert(format!("parameter.{name}"), var.as_tensor().copy()?.detach());
            all.insert(format!("first.{name}"), self.first[name].clone());
            all.insert(format!("second.{name}"), self.second[name].clone());
            all.insert(format!("average.{name}"), self.average[name].clone());
        }
        Ok(all)
    }

    /// Takes a state back.
    ///
    /// # Errors
    /// Names what the state lacks.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let get = |key: String| {
            state
                .get(&key)
                .cloned()
                .ok_or_else(|| candle_core::Error::Msg(format!("the checkpoint has no {key:?}")).bt())
        };
        for (name, var) in &self.vars {
            var.set(&get(format!("parameter.{name}"))?)?;
            self.first.insert(name.clone(), get(format!("first.{name}"))?);
            self.second.insert(name.clone(), get(format!("second.{name}"))?);
            self.average.insert(name.clone(), get(format!("average.{name}"))?);
        }
        Ok(())
    }
}

/// The parameters as they stand, detached from what changes them.
fn copies(vars: &BTreeMap<String, Var>) -> Result<BTreeMap<String, Tensor>> {
    vars.iter()
        .map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?.detach())))
        .collect()
}

/// How the learning rate runs over a part of a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Linear warm-up, then a cosine to a hundredth.
    Whole,
    /// Linear warm-up, then level: the trunk that members branch from.
    Trunk,
    /// A cosine to a hundredth from where the trunk left off.
    Branch,
}

impl Schedule {
    /// The learning rate of a step, counted from 0.
    #[must_use]
    pub fn rate(self, step: usize, steps: usize, peak: f64) -> f64 {
        let warm_up = match self {
            Self::Branch => 0,
            Self::Whole | Self::Trunk => (steps / 20).max(1),
        };
        if step < warm_up {
            return peak * (step + 1) as f64 / warm_up as f64;
        }
        if self == Self::Trunk {
            return peak;
        }
        let share = (step - warm_up) as f64 / (steps - warm_up).max(1) as f64;
        peak * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn finds_the_bottom_of_a_bowl_and_resumes_to_the_same_place() {
        let run = |resume: bool| {
            let var = Var::from_vec(vec![3.0f32, -2.0], (1, 2), &Device::Cpu).unwrap();
            let vars: BTreeMap<_, _> = [("x".to_owned(), var.clone())].into();
            let mut adam = AdamW::new(vars.clone(), 0.0).unwrap();
            for step in 1..=300 {
                if resume && step == 150 {
                    let state = adam.state().unwrap();
                    adam = AdamW::new(vars.clone(), 0.0).unwrap();
                    var.set(&var.zeros_like().unwrap()).unwrap();
                    adam.restore(&state).unwrap();
                }
                let loss = (var.as_tensor() - 1.0).unwrap().sqr().unwrap().sum_all().unwrap();
                adam.step(&loss.backward().unwrap(), step, 0.05, |_| true)
                    .unwrap();
            }
            var.as_tensor().to_vec2::<f32>().unwrap()
        };
        let (whole, resumed) = (run(false), run(true));
        assert_eq!(whole, resumed);
        assert!((whole[0][0] - 1.0).abs() < 0.05 && (whole[0][1] - 1.0).abs() < 0.05);
    }

    #[test]
    fn the_schedule_warms_up_and_decays_and_a_branch_begins_where_its_trunk_ends() {
        let rate = |schedule: Schedule, step| schedule.rate(step, 1000, 1.0);
        assert!(rate(Schedule::Whole, 0) < 0.03);
        assert!((rate(Schedule::Whole, 49) - 1.0).abs() < 1e-9);
        assert!(rate(Schedule::Whole, 999) < 0.011);
        assert!((rate(Schedule::Trunk, 999) - 1.0).abs() < 1e-9);
        assert!((rate(Schedule::Branch, 0) - 1.0).abs() < 1e-9);
        assert!(rate(Schedule::Branch, 999) < 0.011);
    }

    #[test]
    fn the_average_follows_the_parameters_and_lags_behind_them() {
        let var = Var::from_vec(vec![1.0f32], (1, 1), &Device::Cpu).unwrap();
        let mut adam = AdamW::new([("x".to_owned(), var.clone())].into(), 0.0).unwrap();
        for step in 1..=40 {
            let loss = var.as_tensor().sum_all().unwrap();
            adam.step(&loss.backward().unwrap(), step, 0.01, |_| true)
                .unwrap();
        }
        let now = var.as_tensor().to_vec2::<f32>().unwrap()[0][0];
        let average = adam.average()["x"].to_vec2::<f32>().unwrap()[0][0];
        assert!(now < average && average < 1.0, "{now} {average}");
    }
}
