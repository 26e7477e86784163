//! Many requests at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::running::{NOW, ORIGIN, Running};
use crate::tree::Tree;

/// Many tasks submit many forks of one size at once; the witness must not cosign two of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_forks_that_race_one_at_most_is_cosigned() {
    for round in 0..8 {
        let tree = Tree::new(ORIGIN, 1, 16);
        let running = Arc::new(Running::new([tree.key()]));
        assert_eq!(running.status(tree.request(0, 8)).await, 200);
        running.set_clock(NOW + 1);
        let tasks: Vec<_> = (0..24_u8)
            .map(|salt| {
                let (fork, running) = (tree.forked(8, 1 + salt % 6), Arc::clone(&running));
                tokio::spawn(async move {
                    let status = running.status(fork.request(8, 16)).await;
                    (status, fork.text(16))
                })
            })
            .collect();
        let mut cosigned = BTreeSet::new();
        for task in tasks {
            match task.await.unwrap() {
                (200, text) => drop(cosigned.insert(text)),
                (status, _) => assert!(matches!(status, 409 | 422), "round {round}: {status}"),
            }
        }
        assert_eq!(cosigned.len(), 1, "round {round}");
    }
}

/// Many tasks grow one honest log past each other: what is recorded never goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_steps_that_race_each_is_taken_once() {
    let tree = Arc::new(Tree::new(ORIGIN, 1, 64));
    let running = Arc::new(Running::new([tree.key()]));
    let steps = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..6_usize)
        .map(|task| {
            let (tree, running, steps) = (Arc::clone(&tree), Arc::clone(&running), Arc::clone(&steps));
            tokio::spawn(async move {
                let mut old = 0;
                while old < tree.size() {
                    let new = (old + 1 + (old + task) % 5).min(tree.size());
                    let answer = running.add(tree.request(old, new)).await;
                    match answer.status {
                        200 => {
                            steps.lock().unwrap().push((old, new));
                            old = new;
                        }
                        409 => {
                            let recorded = answer.body.trim_end().parse().unwrap();
                            assert!(recorded >= old, "{recorded} recorded after {old}");
                            old = recorded;
                        }
                        status => panic!("{old} to {new}: {status}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut steps = std::mem::take(&mut *steps.lock().unwrap());
    steps.sort_unstable();
    assert!(steps.windows(2).all(|pair| pair[0].1 == pair[1].0), "one chain: {steps:?}");
    assert_eq!((steps[0].0, steps.last().unwrap().1), (0, tree.size()));
}
