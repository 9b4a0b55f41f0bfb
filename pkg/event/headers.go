package event

// Names of the headers (DESIGN §4). Numbers are decimal ASCII, times RFC 3339 in UTC, hashes
// and topic ids hex (PROTOCOL D1).
const (
	HeaderID            = "ce_id"
	HeaderType          = "ce_type"
	HeaderSource        = "ce_source"
	HeaderSpecVersion   = "ce_specversion"
	HeaderTime          = "ce_time"
	HeaderSubject       = "ce_subject"
	HeaderContentType   = "content-type"
	HeaderSequence      = "ce_sequence"
	HeaderCorrelationID = "ce_correlationid"
	HeaderCausationID   = "ce_causationid"
	HeaderUserID        = "ce_userid"
	HeaderTraceparent   = "traceparent"

	// On requests.
	HeaderExpectedVersion = "fs-expected-version"
	HeaderReplyTo         = "fs-reply-to"
	HeaderReplyKey        = "fs-reply-key"
	HeaderDedupeUntil     = "fs-dedupe-until"
	HeaderCompensates     = "fs-compensates"
	HeaderAttempt         = "fs-attempt"

	// On events.
	HeaderCommandID     = "fs-command-id"
	HeaderCommandHash   = "fs-command-hash"
	HeaderCommandOffset = "fs-command-offset"
	HeaderDecidedOffset = "fs-decided-offset" // on events of requests in memory: commands up to it were decided before
	HeaderOrigin        = "fs-origin"         // also on re-routed requests: <topic id hex>/<partition>/<offset>

	// On control records (claim, keepalive, fence).
	HeaderControl         = "fs-control"
	HeaderGroup           = "fs-group"
	HeaderInstance        = "fs-instance"
	HeaderCommandsTopicID = "fs-commands-topic-id"
	HeaderEventsTopicID   = "fs-events-topic-id"
	HeaderLastEventID     = "fs-last-event-id"
	HeaderControlTime     = "fs-time"
)

// Values of HeaderControl (PROTOCOL D1).
const (
	ControlClaim     = "claim"
	ControlKeepalive = "keepalive"
	ControlFence     = "fence"
)

// SpecVersion is the CloudEvents version of HeaderSpecVersion.
const SpecVersion = "1.0"

// ContentTypeAvro is the content type of a value in Confluent or single-object framing.
const ContentTypeAvro = "application/avro"
