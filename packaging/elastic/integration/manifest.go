package main

// The files that describe a package, as its specification names their members.

// manifest is manifest.yml of the package.
type manifest struct {
	FormatVersion   string           `yaml:"format_version"`
	Name            string           `yaml:"name"`
	Title           string           `yaml:"title"`
	Version         string           `yaml:"version"`
	Source          source           `yaml:"source"`
	Description     string           `yaml:"description"`
	Type            string           `yaml:"type"`
	Categories      []string         `yaml:"categories"`
	Conditions      conditions       `yaml:"conditions"`
	Icons           []icon           `yaml:"icons"`
	PolicyTemplates []policyTemplate `yaml:"policy_templates"`
	Owner           owner            `yaml:"owner"`
}

type source struct {
	License string `yaml:"license"`
}

type conditions struct {
	Kibana  kibanaCondition  `yaml:"kibana"`
	Elastic elasticCondition `yaml:"elastic"`
}

type kibanaCondition struct {
	Version string `yaml:"version"`
}

type elasticCondition struct {
	Subscription string   `yaml:"subscription"`
	Capabilities []string `yaml:"capabilities"`
}

type icon struct {
	Source string `yaml:"src"`
	Title  string `yaml:"title"`
	Size   string `yaml:"size"`
	Type   string `yaml:"type"`
}

type policyTemplate struct {
	Name        string  `yaml:"name"`
	Title       string  `yaml:"title"`
	Description string  `yaml:"description"`
	Inputs      []input `yaml:"inputs"`
}

type input struct {
	Type        string     `yaml:"type"`
	Title       string     `yaml:"title"`
	Description string     `yaml:"description"`
	Vars        []variable `yaml:"vars"`
}

type variable struct {
	Name        string   `yaml:"name"`
	Type        string   `yaml:"type"`
	Title       string   `yaml:"title"`
	Description string   `yaml:"description"`
	Multi       bool     `yaml:"multi"`
	Required    bool     `yaml:"required"`
	ShowUser    bool     `yaml:"show_user"`
	Default     []string `yaml:"default"`
}

type owner struct {
	GitHub string `yaml:"github"`
	Type   string `yaml:"type"`
}

// release is an entry of changelog.yml.
type release struct {
	Version string   `yaml:"version"`
	Changes []change `yaml:"changes"`
}

type change struct {
	Description string `yaml:"description"`
	Type        string `yaml:"type"`
	Link        string `yaml:"link"`
}

// streamManifest is manifest.yml of a data stream.
type streamManifest struct {
	Title         string              `yaml:"title"`
	Type          string              `yaml:"type"`
	Dataset       string              `yaml:"dataset"`
	Streams       []stream            `yaml:"streams"`
	Elasticsearch streamElasticsearch `yaml:"elasticsearch"`
}

type stream struct {
	Input        string `yaml:"input"`
	TemplatePath string `yaml:"template_path"`
	Title        string `yaml:"title"`
	Description  string `yaml:"description"`
}

type streamElasticsearch struct {
	IndexTemplate indexTemplate `yaml:"index_template"`
}

type indexTemplate struct {
	Settings indexSettings `yaml:"settings"`
	Mappings indexMappings `yaml:"mappings"`
}

type indexSettings struct {
	Index indexSetting `yaml:"index"`
}

type indexSetting struct {
	Codec   string       `yaml:"codec"`
	Mapping mappingLimit `yaml:"mapping"`
}

type mappingLimit struct {
	TotalFields limit `yaml:"total_fields"`
}

type limit struct {
	Limit int `yaml:"limit"`
}

type indexMappings struct {
	Dynamic          bool                         `yaml:"dynamic"`
	DateDetection    bool                         `yaml:"date_detection"`
	DynamicTemplates []map[string]dynamicTemplate `yaml:"dynamic_templates"`
}

// pipeline is an ingest pipeline.
type pipeline struct {
	Description string      `yaml:"description"`
	Processors  []processor `yaml:"processors"`
	OnFailure   []processor `yaml:"on_failure"`
}

// processor is a processor of a pipeline, by its type.
type processor map[string]processorOptions

type processorOptions struct {
	If               string `yaml:"if,omitempty"`
	Field            any    `yaml:"field"` // a name, or several for remove
	Value            any    `yaml:"value,omitempty"`
	AddToRoot        bool   `yaml:"add_to_root,omitempty"`
	IgnoreMissing    bool   `yaml:"ignore_missing,omitempty"`
	IgnoreEmptyValue bool   `yaml:"ignore_empty_value,omitempty"`
}
