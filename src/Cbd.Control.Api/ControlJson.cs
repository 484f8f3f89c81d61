using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Cbd.Control.Api;

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
    RespectRequiredConstructorParameters = true,
    AllowDuplicateProperties = false)]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(TransportTarget))]
[JsonSerializable(typeof(ListRequest))]
[JsonSerializable(typeof(StopRequest))]
[JsonSerializable(typeof(ClearRequest))]
[JsonSerializable(typeof(RegisterTransportOptions))]
[JsonSerializable(typeof(TransportStarted))]
[JsonSerializable(typeof(StartBackendOptions))]
[JsonSerializable(typeof(BackendStarted))]
[JsonSerializable(typeof(ResizeRequest))]
[JsonSerializable(typeof(ResizedBackend))]
[JsonSerializable(typeof(FaultsRequest))]
[JsonSerializable(typeof(StartDeviceOptions))]
[JsonSerializable(typeof(StartedDevice))]
[JsonSerializable(typeof(FlightFilter))]
[JsonSerializable(typeof(IReadOnlyList<TransportDescription>))]
[JsonSerializable(typeof(IReadOnlyList<HostDescription>))]
[JsonSerializable(typeof(IReadOnlyList<BackendDescription>))]
[JsonSerializable(typeof(IReadOnlyList<DeviceDescription>))]
[JsonSerializable(typeof(IReadOnlyList<ChannelDescription>))]
[JsonSerializable(typeof(IReadOnlyList<FlightDescription>))]
[JsonSerializable(typeof(WantedThings))]
[JsonSerializable(typeof(ForgetRequest))]
[JsonSerializable(typeof(UpgradeRequest))]
[JsonSerializable(typeof(DaemonDescription))]
[JsonSerializable(typeof(ControlProblem))]
[JsonSerializable(typeof(int))]
internal sealed partial class ControlJson : JsonSerializerContext
{
    /// <summary>Texts as they are: it is not HTML, so quotes and plus signs need no escapes.</summary>
    public static JsonSerializerOptions Plain => Variants.Plain;

    /// <summary>The same, indented: what the command line prints.</summary>
    public static JsonSerializerOptions Readable => Variants.Readable;

    /// <summary>Apart, because they are made from <see cref="Default"/>, which must be there first.</summary>
    private static class Variants
    {
        public static readonly JsonSerializerOptions Plain = Make(indented: false);
        public static readonly JsonSerializerOptions Readable = Make(indented: true);

        private static JsonSerializerOptions Make(bool indented)
        {
            var options = new JsonSerializerOptions(Default.Options)
            {
                WriteIndented = indented,
                Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                TypeInfoResolver = Default.WithAddedModifier(Forget),
            };
            options.MakeReadOnly();
            return options;
        }

        /// <summary>A key of an ignored property is as unknown as any other; the serializer would skip it.</summary>
        private static void Forget(JsonTypeInfo type)
        {
            for (int i = type.Properties.Count - 1; i >= 0; i--)
            {
                if (type.Properties[i] is { Get: null, Set: null })
                    type.Properties.RemoveAt(i);
            }
        }
    }
}

internal static class ControlJsonTypes
{
    /// <summary>How a type is written.</summary>
    public static JsonTypeInfo<T> Of<T>(this JsonSerializerOptions options) => (JsonTypeInfo<T>)options.GetTypeInfo(typeof(T));
}
