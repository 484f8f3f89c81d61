using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.WebUtilities;

namespace Cbd.Control.Server;

/// <summary>
/// The description of the control API that the daemon serves (OpenAPI 3.1), made from <see cref="Operations"/>;
/// <c>docs/openapi.json</c> is its copy.
/// </summary>
internal sealed class OpenApiDocument
{
    public const string Path = "/openapi/v1.json";

    /// <summary>Schemas whose names differ from the records': programs may have been generated with these names.</summary>
    private static readonly Dictionary<Type, string> s_names = new()
    {
        [typeof(RegisterTransportOptions)] = "TransportRequest",
        [typeof(StartBackendOptions)] = "BackendRequest",
        [typeof(StartDeviceOptions)] = "DeviceRequest",
        [typeof(TlsOptions)] = "TlsRequest",
        [typeof(StartedDevice)] = "DeviceStarted",
        [typeof(ResizedBackend)] = "BackendResized",
        [typeof(TransportDescription)] = "TransportInfo",
        [typeof(HostDescription)] = "HostInfo",
        [typeof(BackendDescription)] = "BackendInfo",
        [typeof(FaultDescription)] = "FaultInfo",
        [typeof(DeviceDescription)] = "DeviceInfo",
        [typeof(ChannelDescription)] = "ChannelInfo",
        [typeof(FlightDescription)] = "FlightInfo",
        [typeof(FlightEventDescription)] = "FlightEventInfo",
    };

    private readonly SortedDictionary<string, JsonNode> _schemas = new(StringComparer.Ordinal);

    /// <summary>The document as UTF-8 JSON.</summary>
    public static byte[] Write()
    {
        var document = new OpenApiDocument();
        var paths = new JsonObject();
        foreach (var operation in Operations.All)
        {
            if (paths[operation.Path] is not JsonObject path)
                paths.Add(operation.Path, path = []);
            path.Add(operation.Method.ToLowerInvariant(), document.Describe(operation));
        }

        var root = new JsonObject
        {
            ["openapi"] = "3.1.1",
            ["info"] = new JsonObject
            {
                ["title"] = "CBD control API",
                ["description"] = "Spoken over HTTP on the Unix socket <run-dir>/cbdd.sock. "
                    + "Every error is problem details with a kind and one line for the operator in detail.",
                ["version"] = "v1",
            },
            ["paths"] = paths,
            ["components"] = new JsonObject
            {
                ["schemas"] = new JsonObject(document._schemas.Select(schema => KeyValuePair.Create(schema.Key, (JsonNode?)schema.Value))),
            },
            ["tags"] = new JsonArray(new JsonObject { ["name"] = "cbd" }),
        };
        using var text = new MemoryStream();
        using (var writer = new Utf8JsonWriter(text, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            root.WriteTo(writer);
        return text.ToArray();
    }

    private JsonObject Describe(Operation operation)
    {
        var described = new JsonObject
        {
            ["tags"] = new JsonArray("cbd"),
            ["summary"] = operation.Summary,
            ["operationId"] = operation.Name,
        };
        var parameters = operation.PathParameters
            .Select(name => new JsonObject { ["name"] = name, ["in"] = "path", ["required"] = true, ["schema"] = Schema(ControlJson.Plain.Of<int>()) });
        if (!operation.HasBody)
        {
            parameters = parameters.Concat(operation.RequestJson.Properties.Select(property =>
                new JsonObject { ["name"] = property.Name, ["in"] = "query", ["schema"] = Schema(Of(property)) }));
        }

        if (parameters.ToArray<JsonNode>() is { Length: > 0 } all)
            described["parameters"] = new JsonArray(all);
        if (operation.HasBody)
            described["requestBody"] = new JsonObject { ["content"] = Content("application/json", operation.RequestJson), ["required"] = true };
        var responses = new JsonObject();
        if (operation.HasContent)
            responses["200"] = Response(200, Content("application/json", operation.AnswerJson));
        else
            responses["204"] = Response(204, null);
        foreach (var kind in ErrorKinds.All)
            responses[$"{ErrorKinds.HttpStatus(kind)}"] = Response(ErrorKinds.HttpStatus(kind), Content(ControlServer.ProblemContentType, ControlJson.Plain.Of<ControlProblem>()));
        described["responses"] = responses;
        return described;
    }

    private static JsonObject Response(int status, JsonObject? content)
    {
        var response = new JsonObject { ["description"] = ReasonPhrases.GetReasonPhrase(status) };
        if (content is not null)
            response["content"] = content;
        return response;
    }

    private JsonObject Content(string type, JsonTypeInfo json) => new() { [type] = new JsonObject { ["schema"] = Schema(json) } };

    private static JsonTypeInfo Of(JsonPropertyInfo property)
    {
        var type = property.CustomConverter is null or IdOrNullJson ? property.PropertyType : typeof(string);
        return ControlJson.Plain.GetTypeInfo(Nullable.GetUnderlyingType(type) ?? type);
    }

    private JsonObject Schema(JsonTypeInfo json) => json.Kind switch
    {
        JsonTypeInfoKind.Object => new JsonObject { ["$ref"] = $"#/components/schemas/{Component(json)}" },
        JsonTypeInfoKind.Enumerable => new JsonObject { ["type"] = "array", ["items"] = Schema(ControlJson.Plain.GetTypeInfo(json.ElementType!)) },
        _ => Plain(json.Type),
    };

    private static JsonObject Plain(Type type) =>
        type == typeof(bool) ? new() { ["type"] = "boolean" }
        : type == typeof(int) ? new() { ["type"] = "integer", ["format"] = "int32" }
        : type == typeof(long) ? new() { ["type"] = "integer", ["format"] = "int64" }
        : type == typeof(ulong) ? new() { ["type"] = "integer", ["format"] = "uint64" }
        : type == typeof(DateTime) ? new() { ["type"] = "string", ["format"] = "date-time" }
        : type == typeof(Guid) ? new() { ["type"] = "string", ["format"] = "uuid" }
        : new() { ["type"] = "string" }; // texts, and what is written as one

    /// <summary>The name of an object's schema, which is among the schemas then.</summary>
    private string Component(JsonTypeInfo json)
    {
        var name = s_names.GetValueOrDefault(json.Type, json.Type.Name);
        if (_schemas.ContainsKey(name))
            return name;
        var schema = new JsonObject();
        _schemas.Add(name, schema);
        var properties = new JsonObject();
        var required = new JsonArray();
        foreach (var property in json.Properties)
        {
            if (property.IsRequired || property.AssociatedParameter is { HasDefaultValue: false, IsMemberInitializer: false })
                required.Add((JsonNode)property.Name);
            properties.Add(property.Name, property.IsGetNullable || property.CustomConverter is IdOrNullJson ? OrNull(Schema(Of(property))) : Schema(Of(property)));
        }

        if (required.Count > 0)
            schema["required"] = required;
        schema["type"] = "object";
        schema["properties"] = properties;
        if (json.UnmappedMemberHandling == JsonUnmappedMemberHandling.Disallow)
            schema["additionalProperties"] = false;
        return name;
    }

    private static JsonObject OrNull(JsonObject schema)
    {
        if (schema["type"] is not { } type)
            return new JsonObject { ["oneOf"] = new JsonArray(new JsonObject { ["type"] = "null" }, schema) };
        schema["type"] = new JsonArray("null", type.DeepClone());
        return schema;
    }
}
