//! A small story of the killed delivery in every gate; `scripts/delivery.sh` plays the large one.

use supervisor_tests::delivery::kill::{Script, play};
use supervisor_tests::delivery::moments::Doing;

#[test]
fn a_delivery_survives_that_whoever_carries_it_is_killed_again_and_again() {
    let script = Script {
        kills: 12,
        concurrency: 4,
        seed: 1,
    };
    let evidence = play(&script);
    assert!(evidence.is_clean(), "{evidence}");
    let aimed = Doing::AIMS.iter().map(|doing| evidence.hits(*doing));
    assert!(aimed.sum::<usize>() > 0, "git work was hit: {evidence}");
}
