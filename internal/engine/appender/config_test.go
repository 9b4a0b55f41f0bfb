package appender

import (
	"strings"
	"testing"
	"time"
)

func TestNewJoinsAllFaultsOfAConfiguration(t *testing.T) {
	t.Parallel()
	_, err := New(Config{
		BatchBytesMax: 10, WaitingBytesMax: -1, RequestBytesMax: 1 << 40, ProduceTimeout: time.Hour,
		RetryAgeMax: 48 * time.Hour, MetadataInterval: -1, TopicGrace: time.Hour,
	})
	if err == nil {
		t.Fatal("New: got nil, want an error")
	}
	for _, field := range []string{
		"BatchBytesMax", "WaitingBytesMax", "RequestBytesMax", "ProduceTimeout", "RetryAgeMax", "MetadataInterval", "TopicGrace",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("New: got %v, want it to name %s", err, field)
		}
	}
}

func TestZeroConfigurationIsValid(t *testing.T) {
	t.Parallel()
	a, err := New(Config{})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	a.Close()
}
