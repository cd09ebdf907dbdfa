package main

// transform is elasticsearch/transform/*/transform.yml.
type transform struct {
	Description string         `yaml:"description"`
	Source      transformFrom  `yaml:"source"`
	Dest        transformTo    `yaml:"dest"`
	Frequency   string         `yaml:"frequency"`
	Sync        timed          `yaml:"sync"`
	Retention   timed          `yaml:"retention_policy"`
	Latest      *latest        `yaml:"latest,omitempty"`
	Pivot       *pivot         `yaml:"pivot,omitempty"`
	Settings    map[string]any `yaml:"settings"`
	Meta        map[string]any `yaml:"_meta"`
}

type transformFrom struct {
	Index []string       `yaml:"index"`
	Query map[string]any `yaml:"query"`
}

type transformTo struct {
	Index   string  `yaml:"index"`
	Aliases []alias `yaml:"aliases"`
}

type alias struct {
	Alias          string `yaml:"alias"`
	MoveOnCreation bool   `yaml:"move_on_creation"`
}

type timed struct {
	Time timeOf `yaml:"time"`
}

type timeOf struct {
	Field  string `yaml:"field"`
	Delay  string `yaml:"delay,omitempty"`
	MaxAge string `yaml:"max_age,omitempty"`
}

type latest struct {
	UniqueKey []string `yaml:"unique_key"`
	Sort      string   `yaml:"sort"`
}

type pivot struct {
	GroupBy      map[string]aggregation `yaml:"group_by"`
	Aggregations map[string]aggregation `yaml:"aggregations"`
}

// aggregation is an aggregation over a field, by its type.
type aggregation map[string]aggregated

type aggregated struct {
	Field string `yaml:"field"`
}

// transformManifest is elasticsearch/transform/*/manifest.yml.
type transformManifest struct {
	Start    bool          `yaml:"start"`
	Template indexTemplate `yaml:"destination_index_template"`
}

// hash is what an inventory is kept by.
const hash = "oddcert.certificate.hash.sha256"

// inventoryAge is how long a certificate stays in the inventory after it was last
// seen.
const inventoryAge = "365d"

// newTransform is what the transforms have in common. version is that of the
// destination: the next one begins a new index when its fields change.
func newTransform(description, from, to, version string) transform {
	return transform{
		Description: description,
		Source: transformFrom{
			Index: []string{"logs-" + from + "-*"},
			Query: map[string]any{"exists": map[string]any{"field": hash}},
		},
		Dest: transformTo{
			Index:   "logs-oddcert_latest.dest_" + to + "-" + version,
			Aliases: []alias{{Alias: "logs-oddcert_latest." + to, MoveOnCreation: true}},
		},
		Frequency: "5m",
		// Records are searchable a second after they came.
		Sync:     timed{timeOf{Field: "event.ingested", Delay: "60s"}},
		Settings: map[string]any{"unattended": true},
		Meta:     map[string]any{"managed": true},
	}
}

// latestCertificate keeps the last record of each certificate over all sensors.
func latestCertificate() transform {
	t := newTransform("Each certificate that any sensor has seen, once, as it was seen last.", "oddcert.certificate", "certificate", "1")
	t.Latest = &latest{UniqueKey: []string{hash}, Sort: "@timestamp"}
	t.Retention = timed{timeOf{Field: "@timestamp", MaxAge: inventoryAge}}
	return t
}

// inventory is a field of the inventory of servers.
const inventory = "oddcert.inventory."

// serversByCertificate counts where each certificate of a server was seen, over all
// sensors.
func serversByCertificate() transform {
	t := newTransform("How many servers have shown a certificate, under how many names, to how many sensors, and since when.",
		"oddcert.sighting", "servers", "1")
	t.Pivot = &pivot{
		GroupBy: map[string]aggregation{hash: {"terms": {hash}}},
		Aggregations: map[string]aggregation{
			inventory + "servers":    {"cardinality": {"destination.ip"}},
			inventory + "names":      {"cardinality": {"destination.domain"}},
			inventory + "sensors":    {"cardinality": {"observer.name"}},
			inventory + "first_seen": {"min": {"@timestamp"}},
			inventory + "last_new":   {"max": {"@timestamp"}},
		},
	}
	t.Retention = timed{timeOf{Field: inventory + "last_new", MaxAge: inventoryAge}}
	return t
}

// inventoryFields are the fields of the documents that serversByCertificate makes.
func inventoryFields(certificates []field) (fields []field) {
	for _, f := range certificates {
		if f.Name == hash {
			f.CopyTo = "" // its target is not here
			fields = append(fields, f)
		}
	}
	return append(fields,
		field{Name: inventory + "first_seen", Type: "date", Description: "When a server first showed it."},
		field{Name: inventory + "last_new", Type: "date", Description: "When a sensor last saw it on a server, or under a name, that was new to that sensor."},
		field{Name: inventory + "names", Type: "long", Description: "Names that clients asked for, about."},
		field{Name: inventory + "sensors", Type: "long", Description: "Sensors that saw it, about."},
		field{Name: inventory + "servers", Type: "long", Description: "Addresses of servers that showed it, about."},
	)
}
