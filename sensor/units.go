package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// sizeUnits are the units of sizes, as GNU coreutils have them: with B they are
// powers of 1000, and powers of 1024 otherwise.
var sizeUnits = func() map[string]int64 {
	units := map[string]int64{"": 1, "B": 1}
	decimal, binary := int64(1), int64(1)
	for _, prefix := range "KMGT" {
		decimal, binary = decimal*1000, binary*1024
		units[string(prefix)] = binary
		units[string(prefix)+"IB"] = binary
		units[string(prefix)+"B"] = decimal
	}
	return units
}()

// parseSize reads a number of bytes, such as 512M, 2GB or 1 GiB.
func parseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "BIKMGTbikmgt")
	unit, ok := sizeUnits[strings.ToUpper(text[len(number):])]
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size, such as 512M, 2GB or 1 GiB", text)
	}
	return n * unit, nil
}

// formatSize writes a number of bytes with the largest unit that divides it.
func formatSize(n int64) string {
	unit := ""
	for _, u := range "KMGT" {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, string(u)
	}
	return strconv.FormatInt(n, 10) + unit
}

// parseDuration reads a duration, such as 7d, 36h or 1h30m: what
// [time.ParseDuration] reads, with days of 24 hours before it.
func parseDuration(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	days, rest, ok := strings.Cut(strings.TrimSpace(text), "d")
	var d time.Duration
	var err error
	if !ok {
		days, rest = "0", days
	}
	n, e := strconv.ParseUint(days, 10, 16)
	if rest != "" || !ok {
		d, err = time.ParseDuration(rest)
	}
	if e != nil || err != nil || d < 0 || d > math.MaxInt64-time.Duration(n)*day {
		return 0, fmt.Errorf("%q is not a duration, such as 7d, 36h or 90s", text)
	}
	return time.Duration(n)*day + d, nil
}
