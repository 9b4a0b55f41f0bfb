package harness

// Planted is a bug that the services can be built with (build tag "planted"), the cells that catch
// it, and the invariant that it breaks.
type Planted struct {
	Name  string
	Rule  string // that it breaks
	Cell  string
	Check string // a prefix of the invariants of which one must be violated
}

// PlantedBugs lists them all.
func PlantedBugs() []Planted {
	return []Planted{
		{"answer_before_append", "W15", "hold", "1 acknowledged"},
		{"no_claim", "W1", "zombie", "2 streams"},
		{"reclaim_steals", "W4", "steal", "2 streams"},
		{"void_applied", "W6", "foreign", "2 streams"},
		{"commit_past_reply", "W11", "hold-replies", "6 accounted"},
		{"checkpoint_without_h", "W12", "forget-offsets", "1 "},
		{"window_lost", "W13", "kill-ingest", "1 log"},
		{"reroute_without_origin", "W14", "reroute-twice", "1 log"},
		{"negative_without_proof", "W15", "refuse", "history"},
		{"promote_before_ack", "W17", "refuse", "1 acknowledged"},
		{"snapshot_ahead", "DESIGN §5", "hold-snapshots", "2 streams"},
	}
}
