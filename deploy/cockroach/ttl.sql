-- Optional, CockroachDB only: its row-level TTL takes old history, instead of
-- "rollcall retention". Run it once, as the tables' owner, after "rollcall
-- migrate up".
--
-- It goes by age alone. "rollcall retention" keeps the newest change of each
-- attribute and what held at the horizon; this does not: "device history --at"
-- then lacks attributes that have not changed for longer than the TTL, without
-- a word. What attributes are now (device_attribute) is not touched. Tombstones
-- and closed sessions are not for a TTL: whether they may leave is not their
-- age alone. Run the service for these with a long --history.
--
-- Not below Kafka's retention of the events' topic.
ALTER TABLE attribute_change SET (
    ttl_expiration_expression = $$ (applied_at + INTERVAL '90 days') $$,
    ttl_job_cron = '@daily'
);

-- Off again: ALTER TABLE attribute_change RESET (ttl);
