package elastic

import "time"

// Monitor is a bucket-level monitor of OpenSearch's alerting plugin, with the names of
// its API. Such a monitor raises an alert for each group that meets the condition, and
// keeps it until the group does not meet it any more.
type Monitor struct {
	Type        string    `json:"type"`
	Name        string    `json:"name"`
	MonitorType string    `json:"monitor_type"`
	Enabled     bool      `json:"enabled"`
	Schedule    object    `json:"schedule"`
	Inputs      []Input   `json:"inputs"`
	Triggers    []Trigger `json:"triggers"`
}

// Input is a search.
type Input struct {
	Search struct {
		Indices []string `json:"indices"`
		Query   object   `json:"query"`
	} `json:"search"`
}

// Trigger says of which buckets an alert is raised.
type Trigger struct {
	BucketLevel struct {
		Name      string `json:"name"`
		Severity  string `json:"severity"`
		Condition struct {
			ParentBucketPath string            `json:"parent_bucket_path"`
			BucketsPath      map[string]string `json:"buckets_path"`
			Script           struct {
				Source string `json:"source"`
				Lang   string `json:"lang"`
			} `json:"script"`
		} `json:"condition"`
		Actions []any `json:"actions"` // channels are the operator's
	} `json:"bucket_level_trigger"`
}

// groups is the aggregation whose buckets are judged.
const groups = "groups"

// maxGroups is how many groups an answer has; the plugin asks for the next ones.
const maxGroups = 1000

// Monitor returns d as a monitor.
func (d *Detection) Monitor() *Monitor {
	m := &Monitor{
		Type: "monitor", Name: d.Name, MonitorType: "bucket_level_monitor", Enabled: true,
		Schedule: object{"period": object{"interval": int(d.Every / time.Minute), "unit": "MINUTES"}},
		Inputs:   make([]Input, 1),
		Triggers: make([]Trigger, 1),
	}
	search := &m.Inputs[0].Search
	search.Indices = []string{d.Stream}
	var sources []object
	for _, field := range d.GroupBy {
		sources = append(sources, object{field: object{"terms": object{"field": field}}})
	}
	group := object{"composite": object{"size": maxGroups, "sources": sources}}
	if a := d.When.aggregations(); a != nil {
		group["aggregations"] = a
	}
	search.Query = object{
		"size": 0,
		"query": object{"bool": object{"filter": []object{
			since(d.Window),
			{"query_string": object{"query": d.Query}},
		}}},
		"aggregations": object{groups: group},
	}
	trigger := &m.Triggers[0].BucketLevel
	trigger.Name, trigger.Severity, trigger.Actions = d.Name, priorities[d.Severity], []any{}
	trigger.Condition.ParentBucketPath = groups
	trigger.Condition.BucketsPath, trigger.Condition.Script.Source = d.When.trigger()
	trigger.Condition.Script.Lang = "painless"
	return m
}

// since is a filter for records of the last d, at the time when the monitor runs.
func since(d time.Duration) object {
	return object{"range": object{"@timestamp": object{
		"gt": "{{period_end}}||-" + span(d), "lte": "{{period_end}}", "format": "epoch_millis",
	}}}
}
