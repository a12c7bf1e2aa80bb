//! What is to be said about entries of a tree.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Entries of a tree that something is to be said about: the first are named, all are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mishaps {
    /// How many.
    pub total: u64,
    /// The first [`Mishaps::MOST`].
    pub named: Vec<Mishap>,
}

/// One entry of a tree, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mishap {
    /// Its path; what is not UTF-8 in it is replaced.
    pub path: String,
    /// What happened to it.
    pub reason: String,
}

impl Mishaps {
    /// So many are named.
    pub const MOST: usize = 100;

    /// Adds one.
    pub fn note(&mut self, path: String, reason: String) {
        self.total += 1;
        if self.named.len() < Self::MOST {
            self.named.push(Mishap { path, reason });
        }
    }

    /// The first few only, for a sentence.
    #[must_use]
    pub fn brief(&self) -> Self {
        Self {
            total: self.total,
            named: self.named.iter().take(5).cloned().collect(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.total += other.total;
        let room = Self::MOST.saturating_sub(self.named.len());
        self.named.extend(other.named.iter().take(room).cloned());
    }
}

impl fmt::Display for Mishaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Mishap { path, reason }) in self.named.iter().enumerate() {
            let between = if at == 0 { "" } else { ", " };
            write!(f, "{between}'{}' ({reason})", path.escape_debug())?;
        }
        match self.total.saturating_sub(self.named.len() as u64) {
            0 => Ok(()),
            others => write!(f, " and {others} more"),
        }
    }
}
