package service

import "runtime/debug"

// Version returns the version of the running program as Go's build information has it: a tag, a
// pseudo-version, or "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
