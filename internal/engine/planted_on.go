//go:build planted

package engine

import "os"

// The bug to plant is named by FOLDSTREAM_PLANTED. See planted.go.
var (
	plantedAnswerBeforeAppend   = planted("answer_before_append")
	plantedNoClaim              = planted("no_claim")
	plantedReclaimSteals        = planted("reclaim_steals")
	plantedVoidApplied          = planted("void_applied")
	plantedCommitPastReply      = planted("commit_past_reply")
	plantedCheckpointWithoutH   = planted("checkpoint_without_h")
	plantedWindowLost           = planted("window_lost")
	plantedRerouteWithoutOrigin = planted("reroute_without_origin")
	plantedNegativeWithoutProof = planted("negative_without_proof")
	plantedPromoteBeforeAck     = planted("promote_before_ack")
	plantedSnapshotAhead        = planted("snapshot_ahead")
)

func planted(name string) bool { return os.Getenv("FOLDSTREAM_PLANTED") == name }
