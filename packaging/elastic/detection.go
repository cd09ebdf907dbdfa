package elastic

import (
	"fmt"
	"strconv"
	"time"
)

// Severity is that of Elastic Security, with its usual risk score.
type Severity string

// The severities.
const (
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// riskScores are those that Elastic gives to the severities.
var riskScores = map[Severity]int{Low: 21, Medium: 47, High: 73, Critical: 99}

// priorities are the severities of OpenSearch, of which 1 is the highest.
var priorities = map[Severity]string{Critical: "1", High: "2", Medium: "3", Low: "4"}

// Detection is something that is looked for in the records of all sensors.
type Detection struct {
	ID             string // a UUID that stays, so that a new version replaces the old one
	File           string // name of its files, without extension
	Name           string
	Description    string
	Severity       Severity
	FalsePositives []string
	Guide          string // what to do about it, in Markdown
	Threat         []Threat

	Stream  string        // the data streams, with wildcards
	Query   string        // which records count, in Lucene's syntax
	GroupBy []string      // what one alert is about: fields of which each combination of values is judged for itself
	Window  time.Duration // how far back records count
	Every   time.Duration // how often it is judged
	Once    time.Duration // how long the same is not raised again
	When    Condition

	// FromRecord takes name, severity and risk score from the record, which is an
	// alert of oddcert.
	FromRecord bool
}

// Condition says of which groups of records an alert is raised.
type Condition interface {
	// rule sets the type of r and what belongs to it.
	rule(d *Detection, r *Rule)
	// aggregations are what must be known of a group.
	aggregations() object
	// trigger is true where an alert is raised: an expression in Painless over
	// params, which has the values at the paths.
	trigger() (paths map[string]string, expression string)
}

// Count is met by a group of AtLeast records.
type Count struct{ AtLeast int }

// Distinct is met where a field has AtLeast different values in a group.
type Distinct struct {
	Field   string
	AtLeast int
}

// New is met by a group that has records from the last Recent, and none in the window
// before that.
type New struct{ Recent time.Duration }

// Absent is met by a group that has no record from the last For, but has some in the
// window before that.
type Absent struct{ For time.Duration }

// Growth is met where a counter has grown within the window, by at least Share of what
// it and another have grown by together. Both count since the start of a run, so a
// group must not have records of two runs.
type Growth struct {
	Part, Rest string
	Share      float64 // from 0 to 1
}

// replay is how statistics of replays are told from those of live sensors: only a
// replay has captures.
const replay = "oddcert.stats.captures"

// perRun is the same in all statistics of one run of a sensor, and differs between runs.
const perRun = "oddcert.stats.packets.first"

// untrusted are sightings of certificates that do not verify. Others are left out:
// content networks show one certificate on thousands of servers. Sensors judge a
// chain where a rule asks for it.
const untrusted = `oddcert.trust.status:("bad-signature" OR "invalid" OR "self-signed" OR "untrusted-root" OR "incomplete")`

// shared is the number of servers from which on a certificate or key counts as shared.
const shared = 5

// Detections are all that is looked for.
var Detections = []Detection{
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a01", File: "shared-certificate",
		Name:        "oddcert: one certificate on many servers",
		Description: fmt.Sprintf("All sensors together saw one certificate, which does not verify to a trusted root, on %d or more servers within a week. That is how VPN services, botnets and appliances with a built-in certificate look.", shared),
		Severity:    Medium,
		FalsePositives: []string{
			"Appliances of one make that share the certificate of their factory",
			"A cluster whose certificate is of an authority of yours that the sensors do not know: give it to them with --roots",
		},
		Guide:  "Look at the servers of the certificate in `logs-oddcert.sighting-*`: whose networks are they in, and which names were asked for? Clients that talk to many of them use the same service.",
		Threat: []Threat{webTunnel},
		Stream: sightings, Query: "oddcert.certificate.hash.sha256:* AND " + untrusted,
		GroupBy: []string{"oddcert.certificate.hash.sha256"},
		Window:  7 * day, Every: 15 * time.Minute, Once: 7 * day,
		When: Distinct{Field: "destination.ip", AtLeast: shared},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a02", File: "shared-key",
		Name:        "oddcert: one key on many servers",
		Description: fmt.Sprintf("All sensors together saw one public key, in whatever certificates, on %d or more servers within a week, and none of these certificates verifies to a trusted root. Who can read the key of one of them can read that of all.", shared),
		Severity:    Medium,
		FalsePositives: []string{
			"Appliances of one make that share the key of their factory, which is a finding of its own",
			"A cluster that renews its certificates with the same key",
		},
		Guide:  "Compare the certificates of the key in `logs-oddcert.certificate-*` (`oddcert.certificate.spki.sha256`): the same issuer and different names point to one maker. The rule for one certificate is raised too where they all show the same one.",
		Threat: []Threat{webTunnel},
		Stream: sightings, Query: "oddcert.certificate.spki.sha256:* AND " + untrusted,
		GroupBy: []string{"oddcert.certificate.spki.sha256"},
		Window:  7 * day, Every: 15 * time.Minute, Once: 7 * day,
		When: Distinct{Field: "destination.ip", AtLeast: shared},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a03", File: "flagged-certificate-spreads",
		Name:           "oddcert: flagged certificate on another sensor",
		Description:    "A certificate that a rule of oddcert flags is seen by a sensor that had not seen it for 30 days. What was known in one network is now in another.",
		Severity:       High,
		FalsePositives: []string{"A sensor that is new, or was away for 30 days", "Two sensors on the same span: each of them has it"},
		Guide:          "Compare the clients and servers of this alert with those of earlier alerts about the same certificate. The rule that flags it says what it means (`rule.description`, `oddcert.verdict_reasons`).",
		Threat:         []Threat{webTunnel},
		Stream:         alerts, Query: "tls.server.hash.sha256:* AND observer.name:*",
		GroupBy: []string{"observer.name", "tls.server.hash.sha256"},
		Window:  30 * day, Every: 5 * time.Minute, Once: day,
		When: New{Recent: 6 * time.Minute},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a04", File: "alert",
		Name:           "oddcert: alert, once for each flow",
		Description:    "A rule of oddcert matches a handshake. However many sensors see the flow, it is raised once: they compute the same community ID for it.",
		Severity:       Medium,
		FalsePositives: []string{"Those that the rule knows are in oddcert.rule.false_positives"},
		Guide:          "`event.reason` says what to do, `oddcert.verdict_reasons` what the verdict rests on.",
		Stream:         alerts, Query: "rule.id:*",
		GroupBy: []string{"network.community_id", "rule.id"},
		Window:  6 * time.Minute, Every: 5 * time.Minute, Once: time.Hour,
		When: Count{AtLeast: 1}, FromRecord: true,
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a05", File: "sensor-silent",
		Name:           "oddcert: sensor silent",
		Description:    "A live sensor that reported within the last hour has sent no statistics for two minutes; it sends them each 30 seconds.",
		Severity:       High,
		FalsePositives: []string{"The sensor was stopped on purpose", "The clock of the sensor is more than a minute behind", "The way to Elasticsearch is interrupted: the sensor keeps its records and sends them later"},
		Guide:          "On the sensor: `systemctl status oddcert`, `oddcert spool status`. Nothing is lost as long as the program runs and its spool has room.",
		Threat:         []Threat{impaired},
		Stream:         stats, Query: "observer.name:* AND NOT " + replay + ":*",
		GroupBy: []string{"observer.name"},
		Window:  time.Hour, Every: time.Minute, Once: day,
		When: Absent{For: 2 * time.Minute},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a06", File: "link-down",
		Name:           "oddcert: link of a sensor down",
		Description:    "An interface that a sensor watches has no link, is switched off, or is gone, in two statistics of five minutes. The sensor runs, but sees nothing there.",
		Severity:       High,
		FalsePositives: []string{"Work on the cable, the tap or the switch"},
		Guide:          "`oddcert.stats.interfaces` in the record says which state it is in and since when. Look at the cable and at the mirror session of the switch.",
		Threat:         []Threat{impaired},
		Stream:         stats, Query: "observer.name:* AND oddcert.stats.links.down:*",
		GroupBy: []string{"observer.name", "oddcert.stats.links.down"},
		Window:  6 * time.Minute, Every: 5 * time.Minute, Once: day,
		When: Count{AtLeast: 2},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a07", File: "span-silent",
		Name:           "oddcert: span silent",
		Description:    "The link of an interface is up, but in each of the statistics of five minutes no frame had come for at least 30 seconds. The mirror session has most likely ended.",
		Severity:       Medium,
		FalsePositives: []string{"A small network at night"},
		Guide:          "Look at the mirror session of the switch, or at what feeds the tap.",
		Threat:         []Threat{impaired},
		Stream:         stats, Query: "observer.name:* AND oddcert.stats.links.silent:*",
		GroupBy: []string{"observer.name", "oddcert.stats.links.silent"},
		Window:  6 * time.Minute, Every: 5 * time.Minute, Once: day,
		When: Count{AtLeast: 10},
	},
	{
		ID: "6c0f0c53-7a55-4b3e-9d0b-0a3b5b1f5a08", File: "loss",
		Name:           "oddcert: sensor loses frames",
		Description:    "The kernel dropped at least one frame in a thousand of those that came to a sensor within the last ten minutes, because the sensor did not read them in time. Handshakes are missed.",
		Severity:       Medium,
		FalsePositives: []string{"A short peak that is above what the machine can do"},
		Guide:          "`oddcert.stats.interfaces` says on which interface. More workers, a larger ring, or a filter help; see also `oddcert.stats.lag`.",
		Threat:         []Threat{impaired},
		Stream:         stats, Query: "observer.name:* AND " + perRun + ":* AND NOT " + replay + ":*",
		GroupBy: []string{"observer.name", perRun},
		Window:  10 * time.Minute, Every: 5 * time.Minute, Once: day,
		When: Growth{Part: "oddcert.stats.capture.dropped", Rest: "oddcert.stats.capture.frames", Share: 0.001},
	},
}

// aggregations of a Count are none: a bucket has its count.
func (c Count) aggregations() object { return nil }

func (c Count) trigger() (map[string]string, string) {
	return map[string]string{"count": "_count"}, "params.count >= " + strconv.Itoa(c.AtLeast)
}

func (c Distinct) aggregations() object {
	return object{"values": object{"cardinality": object{"field": c.Field}}}
}

func (c Distinct) trigger() (map[string]string, string) {
	return map[string]string{"values": "values"}, "params.values >= " + strconv.Itoa(c.AtLeast)
}

func (c New) aggregations() object { return recent(c.Recent) }

func (c New) trigger() (map[string]string, string) {
	return map[string]string{"count": "_count", "recent": "recent._count"}, "params.recent > 0 && params.recent == params.count"
}

func (c Absent) aggregations() object { return recent(c.For) }

func (c Absent) trigger() (map[string]string, string) {
	return map[string]string{"recent": "recent._count"}, "params.recent == 0"
}

// recent counts the records of the last d of a group.
func recent(d time.Duration) object {
	return object{"recent": object{"filter": since(d)}}
}

func (c Growth) aggregations() object {
	return object{
		"part_max": object{"max": object{"field": c.Part}},
		"part_min": object{"min": object{"field": c.Part}},
		"rest_max": object{"max": object{"field": c.Rest}},
		"rest_min": object{"min": object{"field": c.Rest}},
	}
}

func (c Growth) trigger() (map[string]string, string) {
	part, rest := "params.part_max - params.part_min", "params.rest_max - params.rest_min"
	return map[string]string{"part_max": "part_max", "part_min": "part_min", "rest_max": "rest_max", "rest_min": "rest_min"},
		fmt.Sprintf("%s > 0 && %s >= %v * (%s + %s)", part, part, c.Share, part, rest)
}
