using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Cbd.Control.Json;

/// <summary>
/// How everything on the control socket is written: snake_case keys, numbers as numbers, repeated or missing keys
/// refused. Unknown keys are refused in requests (a mistyped option must not be lost) and skipped in answers (a later
/// daemon may add some). Generated at build time; nothing is reflected over.
/// </summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    NumberHandling = JsonNumberHandling.Strict,
    DefaultIgnoreCondition = JsonIgnoreCondition.Never,
    RespectNullableAnnotations = true,
    AllowDuplicateProperties = false)]
[JsonSerializable(typeof(TransportInfo[]))]
[JsonSerializable(typeof(HostInfo[]))]
[JsonSerializable(typeof(BackendInfo[]))]
[JsonSerializable(typeof(DeviceInfo[]))]
[JsonSerializable(typeof(ChannelInfo[]))]
[JsonSerializable(typeof(FlightInfo[]))]
[JsonSerializable(typeof(TransportRequest))]
[JsonSerializable(typeof(BackendRequest))]
[JsonSerializable(typeof(FaultsRequest))]
[JsonSerializable(typeof(DeviceRequest))]
[JsonSerializable(typeof(StopRequest))]
[JsonSerializable(typeof(ClearRequest))]
[JsonSerializable(typeof(TransportStarted))]
[JsonSerializable(typeof(BackendStarted))]
[JsonSerializable(typeof(ResizeRequest))]
[JsonSerializable(typeof(BackendResized))]
[JsonSerializable(typeof(DeviceStarted))]
[JsonSerializable(typeof(ControlProblem))]
[JsonSerializable(typeof(bool?))] // arguments in addresses, for the OpenAPI document
[JsonSerializable(typeof(int))]
[JsonSerializable(typeof(int?))]
internal sealed partial class ControlJson : JsonSerializerContext
{
    /// <summary>The rules above for the options object of a host that serialises with its own.</summary>
    public static void Apply(JsonSerializerOptions options)
    {
        var rules = Default.Options;
        options.PropertyNamingPolicy = rules.PropertyNamingPolicy;
        options.NumberHandling = rules.NumberHandling;
        options.RespectNullableAnnotations = rules.RespectNullableAnnotations;
        options.AllowDuplicateProperties = rules.AllowDuplicateProperties;
        options.PropertyNameCaseInsensitive = false;
        options.Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping;
        // And no other: what is missing here must fail in tests too, where reflection would still help out.
        options.TypeInfoResolver = Default;
    }

    /// <summary>Texts as they are: it is not HTML, so quotes and plus signs need no escapes.</summary>
    public static ControlJson Plain => Variants.Plain;

    /// <summary>The same, indented: what the command line prints.</summary>
    public static ControlJson Readable => Variants.Readable;

    /// <summary>Apart, because they are made from <see cref="Default"/>, which must be there first.</summary>
    private static class Variants
    {
        public static readonly ControlJson Plain = Make(indented: false);
        public static readonly ControlJson Readable = Make(indented: true);

        private static ControlJson Make(bool indented) => new(new JsonSerializerOptions(Default.Options)
        {
            WriteIndented = indented,
            Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        });
    }
}
