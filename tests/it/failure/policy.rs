//! What follows a failure: the next route if one is named, the streak that an operator sees.

use crate::both::{AGENTS, NO_RETRIES, ask, both};

#[test]
fn a_fallback_answers_and_says_so_and_none_is_taken_that_is_not_named() {
    let world = both("fallbacks = [\"standin/gpt-5.4\"]", NO_RETRIES).start();
    for agent in AGENTS {
        let end = world.send(agent, "c", "[[401 @gpt-5.5]] hello");
        assert_eq!(end["outcome"], "completed", "{agent}: {end}\n{}", world.story());
        assert_eq!(end["model"], "standin/gpt-5.4", "{agent}: {end}");
        assert_eq!(end["attempts"], 2, "{agent}: {end}");
    }
    world.shut_down();
    let world = both("", NO_RETRIES).start();
    for agent in AGENTS {
        let end = world.send(agent, "c", "[[401 @gpt-5.5]] hello");
        assert_eq!(end["class"], "auth", "{agent}: {end}");
        assert_eq!(end["attempts"], 1, "{agent}: {end}");
    }
    world.shut_down();
}

#[test]
fn identical_failures_are_counted_and_an_answer_ends_the_count() {
    let world = both("", NO_RETRIES).start();
    for agent in AGENTS {
        for _ in 0..3 {
            assert_eq!(world.send(agent, "c", "[[401]]")["class"], "auth");
        }
        let row = world.ps(agent);
        assert_eq!(row["last_error"]["class"], "auth", "{row}");
        assert_eq!(row["last_error"]["streak"], 3, "{row}");
    }
    assert_eq!(world.cli(&["health", "--json"]).json()["status"], "degraded");
    for agent in AGENTS {
        ask(&world, agent, "c", "well again");
        assert_eq!(world.ps(agent)["last_error"]["streak"], 0);
    }
    assert_eq!(world.cli(&["health", "--json"]).json()["status"], "ok");
    world.shut_down();
}
