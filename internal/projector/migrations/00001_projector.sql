-- +goose Up

-- Every version of every view that was ever migrated here. definition is the canonical text of
-- columns, merges and event types; one version of a view never changes it.
create table views (
    name       text        not null,
    version    integer     not null,
    definition text        not null,
    live       boolean     not null default false,
    created_at timestamptz not null default now(),
    primary key (name, version)
);
create unique index views_live on views (name) where live;

-- One row per consumer and partition: who owns it (epoch) and how far it is (next_offset, -2 means
-- from the start of the log). The claim is that of PROTOCOL W6, topic_id that of W9.
-- last_event_id is the id of the event at next_offset - 1, empty when that is no event.
create table offsets (
    consumer          text        not null,
    topic             text        not null,
    partition         integer     not null,
    topic_id          text        not null default '',
    epoch             bigint      not null,
    next_offset       bigint      not null,
    claim_producer_id bigint,
    claim_epoch       smallint,
    last_event_id     text        not null default '',
    updated_at        timestamptz not null default now(),
    primary key (consumer, topic, partition)
) with (fillfactor = 50);

-- Streams that a consumer does not go on with, since a record of theirs is a letter.
create table parked (
    consumer     text        not null,
    topic        text        not null,
    partition    integer     not null,
    key          bytea       not null,
    first_offset bigint      not null,
    parked_at    timestamptz not null default now(),
    primary key (consumer, topic, partition, key)
);

-- The letters that count (PROTOCOL P3). letter_* is where the bytes stand in the dead-letter topic;
-- value and the headers keep them beyond that topic's retention.
create table letters (
    consumer         text        not null,
    topic_id         text        not null,
    partition        integer     not null,
    "offset"         bigint      not null,
    topic            text        not null,
    id               uuid        not null,
    key              bytea,
    value            bytea,
    header_names     bytea[]     not null,
    header_values    bytea[]     not null,
    event_type       text        not null,
    stream_version   bigint,
    stage            text        not null,
    class            text        not null,
    message          text        not null,
    reason           text        not null,
    fingerprint      text        not null,
    attempts         integer     not null,
    first_at         timestamptz not null,
    letter_partition integer     not null,
    letter_offset    bigint      not null,
    primary key (consumer, topic_id, partition, "offset")
);
create index letters_first_at on letters (consumer, first_at);

-- +goose Down
drop table letters;
drop table parked;
drop table offsets;
drop table views;
