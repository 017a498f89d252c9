-- Who each agent's latest worker is: written before it is started, when its process runs, and when it says hello.
CREATE TABLE workers (
    agent       TEXT PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    nonce       INTEGER NOT NULL,
    -- The process: the host's boot, its number, the inode of its pidfd, its start in clock ticks since that boot.
    boot        TEXT,
    pid         INTEGER,
    pidfd_inode INTEGER,
    started     INTEGER,
    -- What it said in its hello.
    protocol    INTEGER,
    build       TEXT,
    changed_at  INTEGER NOT NULL,
    CHECK ((pid IS NULL) = (boot IS NULL)),
    CHECK ((protocol IS NULL) = (build IS NULL))
) STRICT;
