package transparency

import (
	"bufio"
	"crypto/sha256"
	_ "embed" // for the list of logs
	"encoding/base64"
	"strings"
	"sync"

	"github.com/oddcert/oddcert/sensor/internal/judge/signature"
)

//go:embed logs.txt
var shipped string

// list is the logs that are known.
type list struct {
	date string // when the list was made, such as 2026-11-24
	logs map[[sha256.Size]byte]*log
}

// log is a log. It is shared by all judges.
type log struct {
	name     string // such as "Google Argon2021"
	operator string
	key      func() *signature.Key // read when it is first asked for; nil where it cannot be read
}

// known is the list that is shipped.
var known = sync.OnceValue(func() *list { return readList(shipped) })

// readList reads a list of lines, each with the name of a log, its operator, and its
// key, with tabs between. Lines that are something else are left out; a test sees that
// the list that is shipped has none.
func readList(text string) *list {
	l := &list{logs: make(map[[sha256.Size]byte]*log)}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := s.Text()
		if date, ok := strings.CutPrefix(line, "# date: "); ok {
			l.date = date
		}
		fields := strings.Split(line, "\t")
		if line == "" || line[0] == '#' || len(fields) != 3 {
			continue
		}
		der, err := base64.StdEncoding.DecodeString(fields[2])
		if err != nil {
			continue
		}
		l.logs[sha256.Sum256(der)] = &log{
			name:     fields[0],
			operator: fields[1],
			key: sync.OnceValue(func() *signature.Key {
				key, err := signature.ParseKey(der)
				if err != nil {
					return nil
				}
				return key
			}),
		}
	}
	return l
}
