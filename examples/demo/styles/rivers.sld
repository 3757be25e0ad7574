<?xml version="1.0" encoding="UTF-8"?>
<StyledLayerDescriptor version="1.0.0" xmlns="http://www.opengis.net/sld" xmlns:ogc="http://www.opengis.net/ogc"
    xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <NamedLayer>
    <Name>rivers</Name>
    <UserStyle>
      <Title>Rivers by width</Title>
      <FeatureTypeStyle>
        <Rule>
          <Title>River</Title>
          <LineSymbolizer><Stroke><CssParameter name="stroke">#5b9bd5</CssParameter><CssParameter name="stroke-width"><ogc:Mul><ogc:PropertyName>width</ogc:PropertyName><ogc:Literal>1.6</ogc:Literal></ogc:Mul></CssParameter><CssParameter name="stroke-linecap">round</CssParameter><CssParameter name="stroke-linejoin">round</CssParameter></Stroke></LineSymbolizer>
        </Rule>
      </FeatureTypeStyle>
    </UserStyle>
  </NamedLayer>
</StyledLayerDescriptor>
