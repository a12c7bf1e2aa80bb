//! Which steps may start: a topological order that is found as the steps end.

use std::{cmp::Reverse, collections::BinaryHeap};

pub(crate) struct Ready {
    /// For each step, how many it still waits for.
    waiting: Vec<usize>,
    /// For each step, those that wait for it.
    dependents: Vec<Vec<usize>>,
    ranks: Vec<usize>,
    heap: BinaryHeap<Reverse<(usize, usize)>>,
}

impl Ready {
    /// Of `count` steps, those that are not `done` are to be run, each after those that `after`
    /// names. Of those that may start, the one with the smallest rank goes first, then the one with
    /// the smallest place.
    pub(crate) fn new<'a>(
        count: usize,
        done: impl Fn(usize) -> bool,
        after: impl Fn(usize) -> &'a [usize],
        rank: impl Fn(usize) -> usize,
    ) -> Self {
        let mut ready = Self {
            waiting: vec![0; count],
            dependents: vec![Vec::new(); count],
            ranks: (0..count).map(rank).collect(),
            heap: BinaryHeap::new(),
        };
        for at in (0..count).filter(|&at| !done(at)) {
            for &before in after(at) {
                if !done(before) {
                    ready.waiting[at] += 1;
                    ready.dependents[before].push(at);
                }
            }
            if ready.waiting[at] == 0 {
                ready.heap.push(Reverse((ready.ranks[at], at)));
            }
        }
        ready
    }

    /// The rank of the next step to start.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.heap.peek().map(|Reverse((rank, _))| *rank)
    }

    /// The next step to start.
    pub(crate) fn pop(&mut self) -> Option<usize> {
        self.heap.pop().map(|Reverse((_, at))| at)
    }

    /// A step ended: those that waited for it alone may start.
    pub(crate) fn ended(&mut self, at: usize) {
        for dependent in std::mem::take(&mut self.dependents[at]) {
            self.waiting[dependent] -= 1;
            if self.waiting[dependent] == 0 {
                self.heap.push(Reverse((self.ranks[dependent], dependent)));
            }
        }
    }
}
