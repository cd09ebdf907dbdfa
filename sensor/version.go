package main

import "runtime/debug"

// release is set by the linker in what is released: v1.2.3.
var release string

// version is the version of the program: in --version, and in the records.
func version() string {
	if release != "" {
		return release
	}
	info, _ := debug.ReadBuildInfo()
	return versionOf(info)
}

// revision is the commit that the program was built from, empty where the go command
// stamped none.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// versionOf is the version that the go command stamped into a program: of a
// release, v1.2.3; of a commit, v0.0.0-TIME-COMMIT; with +dirty where files had
// changed since. Without a stamp it is "devel": go run makes none unless it is
// asked to with -buildvcs=true, and no build does outside of a clone.
func versionOf(info *debug.BuildInfo) string {
	if info == nil {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	v := "devel"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v += "-" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			v += "+dirty"
		}
	}
	return v
}
