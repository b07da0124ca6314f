//! Volumes of every kind, as little of each as the API server takes.

use serde_json::{Value, json};

use crate::support::generate::Random;

/// A volume's source; now and then none, or one that the API server has never heard of.
pub(super) fn source(random: &mut Random) -> Value {
    match random.number(0..=25) {
        0 => json!({"hostPath": {"path": "/etc"}}),
        1 => json!({"gcePersistentDisk": {"pdName": "disk"}}),
        2 => json!({"awsElasticBlockStore": {"volumeID": "vol-1"}}),
        3 => json!({"gitRepo": {"repository": "https://git.example/r.git"}}),
        4 => json!({"nfs": {"server": "nfs.example", "path": "/share"}}),
        5 => {
            json!({"iscsi": {"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2001-04.com.example:storage", "lun": 0}})
        }
        6 => json!({"glusterfs": {"endpoints": "cluster", "path": "vol"}}),
        7 => json!({"rbd": {"monitors": ["10.0.0.1:6789"], "image": "image"}}),
        8 => json!({"flexVolume": {"driver": "example.com/lvm"}}),
        9 => json!({"cinder": {"volumeID": "vol-1"}}),
        10 => json!({"cephfs": {"monitors": ["10.0.0.1:6789"]}}),
        11 => json!({"flocker": {"datasetName": "data"}}),
        12 => json!({"fc": {"targetWWNs": ["50060e801049cfd1"], "lun": 0}}),
        13 => json!({"azureFile": {"secretName": "azure", "shareName": "share"}}),
        14 => json!({"vsphereVolume": {"volumePath": "[store] volumes/disk"}}),
        15 => json!({"quobyte": {"registry": "quobyte.example:7861", "volume": "vol"}}),
        16 => {
            json!({"azureDisk": {"diskName": "disk", "diskURI": "https://disks.example/disk.vhd"}})
        }
        17 => json!({"photonPersistentDisk": {"pdID": "disk"}}),
        18 => json!({"portworxVolume": {"volumeID": "vol-1"}}),
        19 => {
            json!({"scaleIO": {"gateway": "https://sio.example", "system": "sio", "secretRef": {"name": "sio"}, "volumeName": "vol"}})
        }
        20 => json!({"storageos": {"volumeName": "vol"}}),
        21 => json!({"csi": {"driver": "inline.example.com"}}),
        22 => json!({"ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}}}),
        23 => json!({"image": {"reference": "registry.example/data:1"}}),
        24 => json!({}),
        _ => json!({"ofTheFuture": {"server": "x"}, "hostPath": null}),
    }
}
