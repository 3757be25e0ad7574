//! The few reference systems whose text form GeoServer stores with a feature type, and which codes are projected.

/// Whether the code names a projected system: boxes then carry a `class` attribute. Geographic systems stand in
/// the 4000s of the EPSG register.
pub(crate) fn projected(code: &str) -> bool {
    srid(code).is_some_and(|srid| !(4000..5000).contains(&srid))
}

pub(crate) fn srid(code: &str) -> Option<i32> {
    code.strip_prefix("EPSG:").and_then(|digits| digits.parse().ok())
}

/// The well-known text as GeoTools writes it; other codes are kept as they were given.
pub(crate) fn wkt(code: &str) -> String {
    let (name, datum, shift, authority) = match code {
        "EPSG:4326" => (
            "WGS 84",
            "World Geodetic System 1984\", \n    SPHEROID[\"WGS 84\", 6378137.0, 298.257223563, AUTHORITY[\"EPSG\",\"7030\"]]",
            "",
            "6326",
        ),
        "EPSG:4283" => (
            "GDA94",
            "Geocentric Datum of Australia 1994\", \n    SPHEROID[\"GRS 1980\", 6378137.0, 298.257222101, AUTHORITY[\"EPSG\",\"7019\"]]",
            "TOWGS84[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], \n    ",
            "6283",
        ),
        other => return other.to_owned(),
    };
    let code = code.trim_start_matches("EPSG:");
    format!(
        "GEOGCS[\"{name}\", \n  DATUM[\"{datum}, \n    {shift}AUTHORITY[\"EPSG\",\"{authority}\"]], \n  \
         PRIMEM[\"Greenwich\", 0.0, AUTHORITY[\"EPSG\",\"8901\"]], \n  UNIT[\"degree\", 0.017453292519943295], \n  \
         AXIS[\"Geodetic longitude\", EAST], \n  AXIS[\"Geodetic latitude\", NORTH], \n  AUTHORITY[\"EPSG\",\"{code}\"]]"
    )
}
