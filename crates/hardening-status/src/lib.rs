//! What is written into the cluster: policies' status, the certificates that the replicas share, reports of
//! pods that were missed. Answering reviews needs none of it.

pub mod certificates;
