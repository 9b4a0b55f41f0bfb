package codec

// The public surface that other rooms build on; see the room's doc for the model.
