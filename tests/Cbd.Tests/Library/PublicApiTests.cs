using System.Reflection;
using System.Text;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Tests.Architecture;
using Xunit;

namespace Cbd.Tests.Library;

/// <summary>
/// The public surface that users of the library see: all of Cbd and Cbd.Blocks, and the public types of other assemblies that
/// their signatures name.
/// </summary>
public sealed class PublicApiTests
{
    private const BindingFlags Declared =
        BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    private static readonly NullabilityInfoContext s_nullability = new();

    [Fact]
    public void Is_the_one_in_PublicApi_txt()
    {
        string path = Path.Combine(SourceTree.Root, "tests", "Cbd.Tests", "Library", "PublicApi.txt");
        string found = Describe();
        string expected = File.Exists(path) ? File.ReadAllText(path) : "";
        if (found == expected)
            return;
        string received = Path.Combine(Path.GetTempPath(), "PublicApi.txt");
        File.WriteAllText(received, found);
        string[] before = expected.Split('\n'), now = found.Split('\n');
        Assert.Fail($"the public surface changed; if that is wanted, copy {received} to {path} and tell users in CHANGELOG.md\n" +
            string.Join('\n', before.Except(now).Select(line => "- " + line.Trim()).Concat(now.Except(before).Select(line => "+ " + line.Trim()))));
    }

    private static string Describe()
    {
        var text = new StringBuilder();
        foreach (Type type in Types().OrderBy(type => type.FullName, StringComparer.Ordinal))
        {
            text.Append(Header(type)).Append('\n');
            foreach (string member in Members(type).Order(StringComparer.Ordinal))
                text.Append("    ").Append(member).Append('\n');
        }

        return text.ToString();
    }

    private static HashSet<Type> Types()
    {
        var found = new HashSet<Type>([typeof(CbdException), typeof(CbdErrorKind)]);
        var toDo = new Queue<Type>([.. typeof(LocalHost).Assembly.GetExportedTypes(), .. typeof(IBlockDevice).Assembly.GetExportedTypes()]);
        while (toDo.TryDequeue(out Type? type))
        {
            if (!found.Add(type) || type.Assembly == typeof(NativeBuffer).Assembly)
                continue;
            foreach (Type named in Named(type).SelectMany(Parts))
            {
                if (named.Assembly.GetName().Name!.StartsWith("Cbd", StringComparison.Ordinal))
                    toDo.Enqueue(named);
            }
        }

        return found;
    }

    private static IEnumerable<Type> Named(Type type) => type.GetMembers(Declared).Where(IsVisible).SelectMany(member => member switch
    {
        MethodInfo method => method.GetParameters().Select(parameter => parameter.ParameterType).Append(method.ReturnType),
        ConstructorInfo constructor => constructor.GetParameters().Select(parameter => parameter.ParameterType),
        PropertyInfo property => [property.PropertyType],
        FieldInfo field => [field.FieldType],
        _ => (IEnumerable<Type>)[],
    }).Concat(type.GetInterfaces());

    private static IEnumerable<Type> Parts(Type type) =>
        type.HasElementType ? Parts(type.GetElementType()!) : type.IsGenericType ? type.GetGenericArguments().SelectMany(Parts) : [type];

    private static string Header(Type type)
    {
        string kind = type.IsEnum ? $"enum {Name(type)} : {Name(Enum.GetUnderlyingType(type))}"
            : (type.IsInterface ? "interface " : type.IsValueType ? "struct " : type.IsAbstract ? type.IsSealed ? "static class " : "abstract class " : type.IsSealed ? "sealed class " : "class ") + Name(type);
        IEnumerable<Type> bases = (type.BaseType is { } b && b != typeof(object) && b != typeof(ValueType) ? new[] { b } : []).Concat(type.GetInterfaces().OrderBy(Name, StringComparer.Ordinal));
        return type.IsEnum || !bases.Any() ? kind : $"{kind} : {string.Join(", ", bases.Select(Name))}";
    }

    private static IEnumerable<string> Members(Type type) => type.IsEnum
        ? Enum.GetNames(type).Select(name => $"{Convert.ToInt64(Enum.Parse(type, name)):d3} {name}")
        : type.GetMembers(Declared).Where(IsVisible).Select(Member).OfType<string>();

    private static bool IsVisible(MemberInfo member) => member switch
    {
        MethodBase method => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly,
        PropertyInfo property => property.GetAccessors(true).Any(IsVisible),
        FieldInfo field => field.IsPublic || field.IsFamily,
        _ => false,
    };

    /// <summary>Null for what the compiler makes of others: accessors, and the members of records.</summary>
    private static string? Member(MemberInfo member) => member switch
    {
        ConstructorInfo constructor => $"new({Parameters(constructor)})",
        MethodInfo method when method.IsSpecialName || IsOfRecord(method) => null,
        MethodInfo method => $"{(method.IsStatic ? "static " : "")}{Type(method.ReturnType, s_nullability.Create(method.ReturnParameter))} {method.Name}({Parameters(method)})",
        PropertyInfo { Name: "EqualityContract" } => null,
        PropertyInfo property => $"{(property.GetAccessors(true)[0].IsStatic ? "static " : "")}{(property.CustomAttributes.Any(a => a.AttributeType.Name == "RequiredMemberAttribute") ? "required " : "")}{Type(property.PropertyType, s_nullability.Create(property))} {property.Name} {{ {string.Join(' ', property.GetAccessors(true).Where(IsVisible).Select(a => a.ReturnType == typeof(void) ? IsInit(a) ? "init;" : "set;" : "get;"))} }}",
        FieldInfo { IsLiteral: true } field => $"const {Name(field.FieldType)} {field.Name} = {field.GetRawConstantValue()}",
        FieldInfo field => $"{(field.IsStatic ? "static " : "")}{Name(field.FieldType)} {field.Name}",
        _ => null,
    };

    private static bool IsOfRecord(MethodInfo method) =>
        method.Name is "<Clone>$" or "PrintMembers" or "Deconstruct" or "Finalize" ||
        (method.Name is "Equals" or "GetHashCode" or "ToString" && method.DeclaringType!.GetMethod("PrintMembers", Declared) is not null);

    private static bool IsInit(MethodInfo setter) =>
        setter.ReturnParameter.GetRequiredCustomModifiers().Any(modifier => modifier.Name == "IsExternalInit");

    private static string Parameters(MethodBase method) => string.Join(", ", method.GetParameters().Select(parameter =>
        $"{(parameter.IsOut ? "out " : parameter.IsIn ? "in " : parameter.ParameterType.IsByRef ? "ref " : "")}{Type(parameter.ParameterType, s_nullability.Create(parameter))} {parameter.Name}{(parameter.HasDefaultValue ? $" = {parameter.DefaultValue ?? "null"}" : "")}"));

    private static string Type(Type type, NullabilityInfo nullability) =>
        Name(type) + (!type.IsValueType && nullability.ReadState == NullabilityState.Nullable ? "?" : "");

    private static string Name(Type type)
    {
        if (type.IsByRef)
            return Name(type.GetElementType()!);
        if (type.IsArray)
            return Name(type.GetElementType()!) + "[]";
        if (Nullable.GetUnderlyingType(type) is { } underlying)
            return Name(underlying) + "?";
        string name = type.Namespace is "System" or "System.Collections.Generic" ? type.Name : $"{type.Namespace}.{type.Name}";
        return type.IsGenericType ? $"{name.Split('`')[0]}<{string.Join(", ", type.GetGenericArguments().Select(Name))}>" : name;
    }
}
