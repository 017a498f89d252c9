//! The keys that take one of a few words, each word written once: the reader, the reports and the table of keys
//! all take it from here.

use std::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every word of the configuration, in the order of the table of keys.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads the word of the configuration.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where Codex finds its login.
    Auth {
        /// The real auth.json, by link.
        Shared = "shared",
        /// One of its own, from `cofferdam login`.
        Own = "own",
        /// None: the provider's key alone.
        None = "none",
    }
}
words! {
    /// What a message during a turn does.
    QueueMode {
        /// It joins the turn if the runtime can, else it waits.
        Steer = "steer",
        /// It waits for a turn of its own.
        Queue = "queue",
        /// It waits and shares one turn with others that wait.
        Collect = "collect",
        /// It ends the turn and begins its own.
        Interrupt = "interrupt",
    }
}
words! {
    /// What Codex' tools may touch.
    Sandbox {
        /// Nothing.
        ReadOnly = "read-only",
        /// The workspace, HOME, TMPDIR and `writable`.
        WorkspaceWrite = "workspace-write",
        /// All that the user may.
        DangerFullAccess = "danger-full-access",
    }
}
words! {
    /// Whether Codex asks before it steps outside of the sandbox.
    Approval {
        /// What the sandbox forbids fails.
        Never = "never",
        /// Codex asks when it wants more.
        OnRequest = "on-request",
    }
}
words! {
    /// Who answers Codex' questions.
    Reviewer {
        /// A person. None can be asked yet: every question is declined.
        User = "user",
        /// Codex' own reviewer.
        Auto = "auto",
    }
}
words! {
    /// Which HOME an agent's processes see.
    Home {
        /// A folder of its own in the state.
        Private = "private",
        /// The user's.
        Real = "real",
    }
}
words! {
    /// What a firing does while the job's last run still runs.
    Overlap {
        /// It is recorded as skipped.
        Skip = "skip",
        /// It waits.
        Queue = "queue",
    }
}
words! {
    /// What becomes of firings that were missed while the supervisor was away.
    Catchup {
        /// They are recorded as missed.
        None = "none",
        /// The latest one runs.
        Latest = "latest",
        /// All run, oldest first, within a limit.
        All = "all",
    }
}
words! {
    /// What becomes of a run of which nobody knows whether its tools ran.
    OnUncertain {
        /// It ends failed, and says so.
        Fail = "fail",
        /// It runs again.
        Retry = "retry",
    }
}

words! {
    /// The form of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One object a line.
        Json = "json",
    }
}
