//! `plainroute egress`.
use super::{
    Asked, client,
    output::{Rows, or_dash, print_rows},
};
use crate::admin::egress::EgressView;

pub(super) fn egress(asked: &Asked) -> anyhow::Result<bool> {
    let views: Vec<EgressView> = client::ask(asked, "/v1/egress")?;
    print_rows(&views, asked.output, "no Egress is known")?;
    Ok(views.iter().all(EgressView::is_well))
}

impl Rows for EgressView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles =
            vec!["NAME", "ADDRESS", "ACTIVE", "ARMED", "HERE", "SOURCES", "OUT", "DROPPED", "REASON"];
        if wide {
            titles.extend(["BYTES", "ADVERTISED", "FAILURE POLICY"]);
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
        let mut cells = vec![
            self.name.clone(),
            or_dash(self.address),
            or_dash(self.active.clone()),
            or_dash((!self.armed.is_empty()).then(|| self.armed.join(","))),
            yes(self.here),
            self.sources.to_string(),
            self.out_packets.to_string(),
            self.dropped_packets.to_string(),
            or_dash(self.refused.clone()),
        ];
        if wide {
            cells.extend([
                self.out_bytes.to_string(),
                yes(self.advertised),
                format!("{:?}", self.failure_policy),
            ]);
        }
        cells
    }
}
