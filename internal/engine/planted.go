//go:build !planted

package engine

// Bugs that the fault tests plant, to see that they are caught (build tag "planted" and an
// environment variable; see planted_on.go). In every ordinary build they are constants, so the
// compiler removes their branches.
const (
	plantedAnswerBeforeAppend   = false // accepted is answered before the acknowledgement
	plantedNoClaim              = false // what is written between a new owner's read and its claim is not read
	plantedReclaimSteals        = false // a renewal takes the partition back from its new owner (W4)
	plantedVoidApplied          = false // void records are folded (W6)
	plantedCommitPastReply      = false // the group offset passes commands whose reply is not sent (W11)
	plantedCheckpointWithoutH   = false // the checkpoint does not carry H (W12)
	plantedWindowLost           = false // command ids are forgotten at a restart (W13)
	plantedRerouteWithoutOrigin = false // re-routed commands carry no fs-origin (W14)
	plantedNegativeWithoutProof = false // conflicts and the like are answered without a proof (W15)
	plantedPromoteBeforeAck     = false // state counts as acknowledged before it is
	plantedSnapshotAhead        = false // snapshots hold events that are not acknowledged
)
