package main

import (
	"io"
	"testing"

	"github.com/spf13/cobra"
)

// TestReadInventory has the captures of this package.
func TestReadInventory(t *testing.T) {
	cmd := &cobra.Command{}
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	cmd.SetContext(t.Context())
	var c config
	c.bind(cmd, cmd.Flags(), onInventory)
	s, err := readInventory(cmd, &c, []string{"testdata/captures"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	totals, err := s.Totals()
	if err != nil || totals.Certificates != 8 || totals.Handshakes != 18 || totals.Alerts != 3 {
		t.Errorf("%+v, %v", totals, err)
	}
	for a, err := range s.Alerts() {
		if err != nil || len(a.Record) == 0 || a.Record[0] != '{' || a.Reason == "" {
			t.Errorf("%+v, %v", a, err)
		}
	}
}
