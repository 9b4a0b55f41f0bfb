-- +goose Up

-- What operators ask of a consumer. A consumer without a row runs.
-- held_by: a tool has the consumer's partitions for itself (a rebuild, a comparison, one step), until
-- held_until or, where that is null, until it gives them back. generation counts the times; a
-- worker of an older one takes its partitions anew. revision counts corrections.
create table controls (
    consumer   text        primary key,
    paused     boolean     not null default false,
    held_by    text        not null default '',
    held_until timestamptz,
    generation bigint      not null default 0,
    revision   bigint      not null default 0,
    reason     text        not null default '',
    actor      text        not null default '',
    changed_at timestamptz not null default now()
);

-- Rebuilds under way: what is to be made again at the end.
create table rebuilds (
    consumer   text        primary key,
    indexes    text[]      not null,
    actor      text        not null,
    started_at timestamptz not null default now()
);

-- What operators decided about single events (the topic <ns>.corrections has the same). An event is
-- named by its stream and version; a record without a version (0) by its place.
create table corrections (
    consumer  text        not null,
    category  text        not null,
    stream    text        not null,
    version   bigint      not null,
    topic     text        not null,
    topic_id  text        not null,
    partition integer     not null,
    "offset"  bigint      not null,
    action    text        not null,
    reason    text        not null,
    actor     text        not null,
    at        timestamptz not null,
    primary key (consumer, topic_id, partition, "offset")
);

-- How many letters of the stream were written since it was parked: bounds those of one key.
alter table parked add column letters bigint not null default 0;

create index letters_key on letters (consumer, topic, partition, md5(key));

-- dropped: the version's tables are gone and it is not folded, though a program may still have it.
-- replaced: the version that was live before this one was switched to.
alter table views add column dropped boolean not null default false;
alter table views add column live_since timestamptz;
alter table views add column replaced integer;

-- +goose Down
alter table views drop column replaced;
alter table views drop column live_since;
alter table views drop column dropped;
drop index letters_key;
alter table parked drop column letters;
drop table corrections;
drop table rebuilds;
drop table controls;
