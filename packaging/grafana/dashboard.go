// Package grafana makes the dashboard oddcert.json, which people import into Grafana.
// After a change here, run its test with -update.
package grafana

import "encoding/json"

// Dashboard is a dashboard of Grafana, in the JSON model that it exports and imports.
type Dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"` // 1: all panels show the same time
	Refresh       string     `json:"refresh"`
	SchemaVersion int        `json:"schemaVersion"`
	Time          timeRange  `json:"time"`
	Templating    templating `json:"templating"`
	Panels        []Panel    `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []Variable `json:"list"`
}

// Variable is what people choose at the top of a dashboard.
type Variable struct {
	Name       string      `json:"name"`
	Label      string      `json:"label"`
	Type       string      `json:"type"`
	Query      string      `json:"query"`
	Datasource *datasource `json:"datasource,omitempty"`
	Refresh    int         `json:"refresh,omitempty"` // 2: when the time range changes
	Sort       int         `json:"sort,omitempty"`
	Multi      bool        `json:"multi,omitempty"`
	IncludeAll bool        `json:"includeAll,omitempty"`
	Current    *current    `json:"current,omitempty"`
}

type current struct {
	Text  string `json:"text"`
	Value string `json:"value"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// Panel is a graph, a row of numbers or the title of a row.
type Panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	GridPos     position    `json:"gridPos"`
	Datasource  *datasource `json:"datasource,omitempty"`
	FieldConfig *fields     `json:"fieldConfig,omitempty"`
	Options     *options    `json:"options,omitempty"`
	Targets     []Target    `json:"targets,omitempty"`
	Panels      []Panel     `json:"panels,omitempty"`
}

type position struct {
	X int `json:"x"`
	Y int `json:"y"`
	W int `json:"w"`
	H int `json:"h"`
}

type fields struct {
	Defaults fieldDefaults `json:"defaults"`
	Override []struct{}    `json:"overrides"`
}

type fieldDefaults struct {
	Unit       string      `json:"unit,omitempty"`
	Min        *float64    `json:"min,omitempty"`
	Custom     *custom     `json:"custom,omitempty"`
	Mappings   []mapping   `json:"mappings,omitempty"`
	Thresholds *thresholds `json:"thresholds,omitempty"`
}

type custom struct {
	FillOpacity int       `json:"fillOpacity"`
	ShowPoints  string    `json:"showPoints"`
	Stacking    *stacking `json:"stacking,omitempty"`
}

type stacking struct {
	Mode string `json:"mode"`
}

type mapping struct {
	Type    string            `json:"type"`
	Options map[string]result `json:"options"`
}

type result struct {
	Text  string `json:"text"`
	Color string `json:"color"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

type options struct {
	Legend        *legend  `json:"legend,omitempty"`
	Tooltip       *tooltip `json:"tooltip,omitempty"`
	TextMode      string   `json:"textMode,omitempty"`
	ReduceOptions *reduce  `json:"reduceOptions,omitempty"`
}

type legend struct {
	DisplayMode string   `json:"displayMode"`
	Placement   string   `json:"placement"`
	ShowLegend  bool     `json:"showLegend"`
	Calcs       []string `json:"calcs"`
}

type tooltip struct {
	Mode string `json:"mode"`
	Sort string `json:"sort"`
}

type reduce struct {
	Calcs []string `json:"calcs"`
}

// Target is a query of a panel.
type Target struct {
	RefID        string      `json:"refId"`
	Expr         string      `json:"expr"`
	LegendFormat string      `json:"legendFormat"`
	Datasource   *datasource `json:"datasource,omitempty"`
}

// prometheus is the source that people choose.
var prometheus = &datasource{Type: "prometheus", UID: "${datasource}"}

// What narrows queries to what people have chosen.
const (
	sensor    = `instance=~"$sensor"`
	onIface   = sensor + `, interface=~"$interface"`
	perSecond = "[$__rate_interval]"
)

// row is a title with the panels below it.
type row struct {
	title  string
	panels []Panel
}

// query is an expression with the legend of its series.
type query struct{ expr, legend string }

// graph is a panel of curves.
func graph(title, unit, description string, queries ...query) Panel {
	zero := 0.0
	p := Panel{
		Type: "timeseries", Title: title, Description: description, Datasource: prometheus,
		FieldConfig: &fields{Defaults: fieldDefaults{Unit: unit, Min: &zero, Custom: &custom{FillOpacity: 10, ShowPoints: "never"}}, Override: []struct{}{}},
		Options: &options{
			Legend:  &legend{DisplayMode: "list", Placement: "bottom", ShowLegend: true, Calcs: []string{}},
			Tooltip: &tooltip{Mode: "multi", Sort: "desc"},
		},
	}
	return p.with(queries)
}

// stacked puts the curves of a graph on one another.
func stacked(p Panel) Panel {
	p.FieldConfig.Defaults.Custom.FillOpacity = 40
	p.FieldConfig.Defaults.Custom.Stacking = &stacking{Mode: "normal"}
	return p
}

// number is a panel of numbers, red from a threshold on, or below it.
func number(title, unit, description string, red float64, below bool, queries ...query) Panel {
	limits := []step{{Color: "green"}, {Color: "red", Value: &red}}
	if below {
		limits = []step{{Color: "red"}, {Color: "green", Value: &red}}
	}
	p := Panel{
		Type: "stat", Title: title, Description: description, Datasource: prometheus,
		FieldConfig: &fields{Defaults: fieldDefaults{Unit: unit, Thresholds: &thresholds{Mode: "absolute", Steps: limits}}, Override: []struct{}{}},
		Options:     &options{TextMode: "value_and_name", ReduceOptions: &reduce{Calcs: []string{"lastNotNull"}}},
	}
	return p.with(queries)
}

// yes is a panel of numbers that are 1 where all is well.
func yes(title, description, good, bad string, queries ...query) Panel {
	p := number(title, "", description, 1, true, queries...)
	p.FieldConfig.Defaults.Mappings = []mapping{{Type: "value", Options: map[string]result{"1": {good, "green"}, "0": {bad, "red"}}}}
	return p
}

func (p Panel) with(queries []query) Panel {
	for i, q := range queries {
		p.Targets = append(p.Targets, Target{RefID: string(rune('A' + i)), Expr: q.expr, LegendFormat: q.legend, Datasource: prometheus})
	}
	return p
}

var rows = []row{
	{"Does it work", []Panel{
		yes("Sensors", "Whether Prometheus reaches them.", "up", "down", query{`up{job="oddcert", ` + sensor + `}`, "{{instance}}"}),
		yes("Links", "Whether frames can come.", "up", "no link", query{`oddcert_interface_state{state="up", ` + onIface + `}`, "{{instance}} {{interface}}"}),
		yes("Outputs", "Whether records get to the receivers.", "delivers", "in trouble", query{`oddcert_output_up{` + sensor + `}`, "{{instance}} {{output}}"}),
		number("Silence", "s", "Time since the last frame, while the link is up.", 60, false, query{`oddcert_interface_silence_seconds{` + onIface + `}`, "{{instance}} {{interface}}"}),
		number("Lost packets", "percentunit", "Share of the packets that the kernel dropped.", 0.01, false,
			query{`rate(oddcert_capture_dropped_total{` + sensor + `}` + perSecond + `) / (rate(oddcert_capture_dropped_total{` + sensor + `}` + perSecond + `) + rate(oddcert_capture_frames_total{` + sensor + `}` + perSecond + `))`, "{{instance}}"}),
		yes("Rules", "Whether rules and lists could be loaded.", "loaded", "failed", query{`oddcert_reload_last_successful{` + sensor + `}`, "{{instance}}"}),
	}},
	{"Alerts", []Panel{
		graph("Matches of rules", "short", "By rule.", query{`sum by (title) (increase(oddcert_rule_matches_total{` + sensor + `}` + perSecond + `))`, "{{title}}"}),
		graph("Alerts and summaries", "short", "Alerts that were made, and matches that were counted instead.",
			query{`sum by (instance) (increase(oddcert_records_alerts_total{` + sensor + `}` + perSecond + `))`, "{{instance}} alerts"},
			query{`sum by (instance) (increase(oddcert_suppression_suppressed_total{` + sensor + `}` + perSecond + `))`, "{{instance}} counted"}),
	}},
	{"Traffic", []Panel{
		graph("Frames", "pps", "Read by the sensor, by interface.", query{`rate(oddcert_interface_frames_total{` + onIface + `}` + perSecond + `)`, "{{instance}} {{interface}}"}),
		graph("Bytes", "Bps", "Read by the sensor, and withheld by the kernel because their flow is decided.",
			query{`rate(oddcert_capture_bytes_total{` + sensor + `}` + perSecond + `)`, "{{instance}} read"},
			query{`rate(oddcert_capture_shunted_bytes_total{` + sensor + `}` + perSecond + `)`, "{{instance}} withheld"}),
		graph("Dropped frames", "pps", "By the kernel, as a ring was full.", query{`rate(oddcert_interface_dropped_total{` + onIface + `}` + perSecond + `)`, "{{instance}} {{interface}}"}),
		graph("Lag", "s", "How late packets are read, and how long the slowest worker is busy.",
			query{`oddcert_lag_seconds{` + sensor + `}`, "{{instance}} lag"},
			query{`oddcert_stalled_seconds{` + sensor + `}`, "{{instance}} busy"}),
		stacked(graph("Handshakes", "short", "A second, by what became of the certificate.", query{`sum by (outcome) (rate(oddcert_certificates_total{` + sensor + `}` + perSecond + `))`, "{{outcome}}"})),
		stacked(graph("Lost certificates", "short", "A second, by the cause.", query{`sum by (cause) (rate(oddcert_loss_total{` + sensor + `}` + perSecond + `))`, "{{cause}}"})),
		graph("Flows", "short", "That are in the table.", query{`oddcert_flows_open{` + sensor + `}`, "{{instance}}"}),
		graph("Frames that cannot be read", "pps", "They might have carried TLS.", query{`topk(10, sum by (name) (rate(oddcert_unread_frames_total{` + sensor + `}` + perSecond + `)))`, "{{name}}"}),
	}},
	{"Delivery", []Panel{
		stacked(graph("Delivered records", "short", "A second, by output.", query{`sum by (output) (rate(oddcert_output_delivered_total{` + sensor + `}` + perSecond + `))`, "{{output}}"})),
		graph("Time to delivery", "s", "95 of 100 records were acknowledged within this time after they were in the spool.",
			query{`histogram_quantile(0.95, sum by (output, le) (rate(oddcert_output_delivery_seconds_bucket{` + sensor + `}` + perSecond + `)))`, "{{output}}"}),
		graph("Waiting records", "short", "By output and queue.", query{`oddcert_output_backlog_records{` + sensor + `}`, "{{instance}} {{output}} {{queue}}"}),
		graph("Age of the oldest record", "s", "By output and queue.", query{`oddcert_output_backlog_age_seconds{` + sensor + `}`, "{{instance}} {{output}} {{queue}}"}),
		graph("Spool", "percentunit", "How full it is.", query{`oddcert_spool_bytes{` + sensor + `} / oddcert_spool_limit_bytes{` + sensor + `}`, "{{instance}}"}),
		graph("Lost and refused records", "short", "Refused by the spool, given up, and refused by a receiver for good.",
			query{`sum by (instance) (increase(oddcert_spool_refused_total{` + sensor + `}` + perSecond + `))`, "{{instance}} refused"},
			query{`sum by (output) (increase(oddcert_output_dropped_total{` + sensor + `}` + perSecond + `))`, "{{output}} given up"},
			query{`sum by (output) (increase(oddcert_output_dead_total{` + sensor + `}` + perSecond + `))`, "{{output}} dead letters"}),
	}},
	{"Process", []Panel{
		graph("CPU", "percentunit", "1 is one core.", query{`rate(process_cpu_seconds_total{job="oddcert", ` + sensor + `}` + perSecond + `)`, "{{instance}}"}),
		graph("Memory", "bytes", "Resident, and the heap of Go.",
			query{`process_resident_memory_bytes{job="oddcert", ` + sensor + `}`, "{{instance}} resident"},
			query{`go_memstats_heap_inuse_bytes{job="oddcert", ` + sensor + `}`, "{{instance}} heap"}),
		graph("Uptime", "s", "", query{`oddcert_uptime_seconds{` + sensor + `}`, "{{instance}}"}),
		graph("Versions", "short", "Sensors of each version.", query{`count by (version) (oddcert_build_info{` + sensor + `})`, "{{version}}"}),
	}},
}

// New returns the dashboard.
func New() *Dashboard {
	d := &Dashboard{
		UID: "oddcert", Title: "oddcert", Description: "How the sensors are, what they see, and what becomes of their records.",
		Tags: []string{"oddcert"}, Editable: true, GraphTooltip: 1, Refresh: "30s", SchemaVersion: 39,
		Time: timeRange{From: "now-3h", To: "now"},
		Templating: templating{[]Variable{
			{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"},
			variable("sensor", "Sensor", `label_values(oddcert_build_info, instance)`),
			variable("interface", "Interface", `label_values(oddcert_interface_state{`+sensor+`}, interface)`),
		}},
	}
	y := 0
	for _, r := range rows {
		d.add(Panel{Type: "row", Title: r.title, GridPos: position{0, y, 24, 1}})
		y++
		width, height := 12, 8
		if r.panels[0].Type == "stat" {
			width, height = 4, 5
		}
		for i, p := range r.panels {
			p.GridPos = position{i * width % 24, y + i*width/24*height, width, height}
			d.add(p)
		}
		y += (len(r.panels)*width + 23) / 24 * height
	}
	return d
}

func (d *Dashboard) add(p Panel) {
	p.ID = len(d.Panels) + 1
	d.Panels = append(d.Panels, p)
}

// variable is one whose values are those of a label.
func variable(name, title, values string) Variable {
	return Variable{Name: name, Label: title, Type: "query", Query: values, Datasource: prometheus, Refresh: 2, Sort: 1, Multi: true, IncludeAll: true,
		Current: &current{"All", "$__all"}}
}

// JSON is the dashboard as Grafana imports it.
func (d *Dashboard) JSON() ([]byte, error) {
	b, err := json.MarshalIndent(d, "", "  ")
	return append(b, '\n'), err
}
