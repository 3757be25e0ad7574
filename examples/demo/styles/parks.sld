<?xml version="1.0" encoding="UTF-8"?>
<StyledLayerDescriptor version="1.0.0" xmlns="http://www.opengis.net/sld" xmlns:ogc="http://www.opengis.net/ogc"
    xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <NamedLayer>
    <Name>parks</Name>
    <UserStyle>
      <Title>Parks</Title>
      <FeatureTypeStyle>
        <Rule>
          <Title>Park</Title>
          <PolygonSymbolizer><Fill><CssParameter name="fill">#a9d08e</CssParameter></Fill><Stroke><CssParameter name="stroke">#6f9e55</CssParameter><CssParameter name="stroke-width">0.4</CssParameter></Stroke></PolygonSymbolizer>
        </Rule>
      </FeatureTypeStyle>
    </UserStyle>
  </NamedLayer>
</StyledLayerDescriptor>
