package kafka

import (
	"encoding/xml"
	"testing"
)

func TestVersionIsTheOneInThePOM(t *testing.T) {
	var pom struct {
		Properties struct {
			Kafka string `xml:"kafka.version"`
		} `xml:"properties"`
	}
	if err := xml.Unmarshal(POM, &pom); err != nil {
		t.Fatalf("pom.xml does not parse: %v", err)
	}
	if got := pom.Properties.Kafka; got != Version {
		t.Errorf("pom.xml names Kafka %q, the constant says %q", got, Version)
	}
}
