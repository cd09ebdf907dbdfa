package main

import (
	"runtime/debug"
	"testing"
)

func TestVersion(t *testing.T) {
	build := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "2e73a77fa739767600863cb14c6b2ed52318c939"}
	for _, c := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, "devel"},
		{build(""), "devel"},
		{build("(devel)"), "devel"}, // go run, or GOFLAGS=-buildvcs=false
		{build("(devel)", revision, debug.BuildSetting{Key: "vcs.modified", Value: "false"}), "devel-2e73a77fa739"},
		{build("(devel)", revision, debug.BuildSetting{Key: "vcs.modified", Value: "true"}), "devel-2e73a77fa739+dirty"},
		{build("(devel)", debug.BuildSetting{Key: "vcs.revision", Value: "short"}), "devel"},
		{build("v0.0.0-20261128214316-2e73a77fa739+dirty", revision), "v0.0.0-20261128214316-2e73a77fa739+dirty"},
		{build("v1.2.3"), "v1.2.3"},
	} {
		if got := versionOf(c.info); got != c.want {
			t.Errorf("%+v: %q, want %q", c.info, got, c.want)
		}
	}
}
